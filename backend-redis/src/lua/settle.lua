-- What time alone does to a reading: messages expire, delays end, claims lapse.

-- Ends a message that nobody has changed, everywhere.
local function expire(q, sequence, n, meta, now)
  if n == 1 and sequence > q.cursor then
    remove(q, sequence, fresh_record('n', meta))
    q.expired = q.expired + 1
    return
  end
  local function from(r)
    if call('HEXISTS', r.p .. ':m', sequence) == 1 then return false end
    local m = fresh_record('f', meta)
    if call('ZSCORE', r.p .. ':d', sequence) then
      m.state = 'd'
    elseif m.key then
      m.state = 'l'
      if not call('ZSCORE', r.p .. ':l', sequence) then return false end
    elseif not call('ZSCORE', r.p .. ':f', sequence) then
      return false
    end
    remove(r, sequence, m)
    return true
  end
  if from(q) then q.expired = q.expired + 1 end
  for _, r in ipairs(group_readings(q)) do from(r) end
  local log = log_of(q)
  if log and call('HEXISTS', log.p .. ':m', sequence) == 0 then forget_retained(q, sequence) end
end

-- Ends what is over of the runs of a stream; answers how many messages it looked at.
local function settle_runs(q, n, now, budget)
  local e, s, done = q.p .. ':e' .. n, q.p .. ':' .. n, 0
  while done < budget do
    local from = call('ZRANGEBYSCORE', e, '-inf', now, 'LIMIT', 0, 1)[1]
    if not from then break end
    local entries = call('XRANGE', s, from, '+', 'COUNT', CHUNK)
    local goes_on, at
    for _, found in ipairs(entries) do
      local meta = found[2][2]
      local _, _, expires = unpack_bytes('<I6I6I6', meta)
      if expires > now then
        goes_on, at = found[1]:sub(1, -3), expires
        break
      end
      expire(q, sequence_of(found[1]), n, meta, now)
      done = done + 1
    end
    if not goes_on and #entries == CHUNK then
      goes_on, at = text(sequence_of(entries[CHUNK][1]) + 1), now
    end
    q.runs = q.runs - call('ZREM', e, from)
    if not goes_on then
      -- Nothing follows.
      q['tail' .. n] = NEVER
    elseif at < NEVER then
      q.runs = q.runs + call('ZADD', e, at, goes_on)
    end
    if #entries == 0 then done = done + 1 end
    -- The next run may lead over the same messages.
    flush(q)
  end
  return done
end

local function read_claim(raw)
  local renewed, ttl, expires, at = unpack_bytes('<I6I5I6', raw)
  return renewed, ttl, expires, at
end

-- The sequences that a claim took.
local function claimed_sequences(raw)
  local all = {}
  for at = 18, #raw, 6 do
    all[#all + 1] = (unpack_bytes('<I6', raw, at))
  end
  return all
end

-- The messages that a claim still holds, as pairs of sequence and record.
local function held_by(r, id, sequences)
  local held = {}
  for from = 1, #sequences, 1000 do
    local part = { unpack(sequences, from, min(from + 999, #sequences)) }
    for i, raw in ipairs(call('HMGET', r.p .. ':m', unpack(part))) do
      if raw then
        local m = read_record(raw)
        if m.state == 'c' and m.claim == id then
          held[#held + 1] = { part[i], complete(m, r.q, part[i]) }
        end
      end
    end
  end
  return held
end

-- A message whose time has come is gone, and counted if the queue itself had it.
local function end_message(r, sequence, m)
  remove(r, sequence, m)
  if r == r.q then r.q.expired = r.q.expired + 1 end
end

-- Frees what a claim held; answers how many messages that were, and whether it is done.
local function lapse(r, member, now, budget)
  local id = member:sub(2)
  local raw = call('HGET', r.p .. ':h', id)
  if not raw then
    call('ZREM', r.p .. ':t', member)
    return 1
  end
  local sequences = claimed_sequences(raw)
  local part = { unpack(sequences, 1, min(#sequences, budget)) }
  for _, pair in ipairs(held_by(r, id, part)) do
    local sequence, m = pair[1], pair[2]
    if m.expires <= now then
      end_message(r, sequence, m)
    else
      free(r, sequence, m)
    end
  end
  if #part < #sequences then
    call('HSET', r.p .. ':h', id, raw:sub(1, 17) .. raw:sub(18 + 6 * #part))
  else
    call('HDEL', r.p .. ':h', id)
    call('ZREM', r.p .. ':t', member)
  end
  return max(#part, 1)
end

-- A message that has to be looked at.
local function look_at(r, member, now)
  local sequence = tonumber(member:sub(2))
  local raw = call('HGET', r.p .. ':m', sequence)
  local m
  if raw then
    m = read_record(raw)
  else
    local meta = call('ZSCORE', r.p .. ':d', sequence) and entry(r.q, sequence)
    if meta then m = fresh_record('d', meta) end
  end
  if not m or m.state == 'c' then
    call('ZREM', r.p .. ':t', member)
  elseif m.expires <= now then
    call('ZREM', r.p .. ':t', member)
    end_message(r, sequence, m)
  elseif m.state == 't' or (m.state == 'd' and m.visible <= now) then
    call('ZREM', r.p .. ':t', member)
    free(r, sequence, m)
  else
    call('ZADD', r.p .. ':t', m.state == 'd' and min(m.visible, m.expires) or m.expires, member)
  end
end

local function settle_timers(r, now, budget)
  local t, done = r.p .. ':t', 0
  while done < budget do
    local members = call('ZRANGEBYSCORE', t, '-inf', now, 'LIMIT', 0, CHUNK)
    if #members == 0 then break end
    for _, member in ipairs(members) do
      local kind = member:byte()
      if kind == 99 then -- c
        done = done + lapse(r, member, now, budget - done)
      elseif kind == 109 then -- m
        look_at(r, member, now)
        done = done + 1
      else
        local id = member:sub(2)
        local raw = call('HGET', r.p .. ':u', id)
        if raw then
          local _, ends = unpack_bytes('<I6I6', raw)
          if ends <= now then call('HDEL', r.p .. ':u', id) end
        end
        call('ZREM', t, member)
        done = done + 1
      end
      if done >= budget then break end
    end
    -- What was put off must be seen by what comes next.
    flush(r.q)
  end
  return done
end

-- Ends retained messages that were put off.
local function settle_log(log, now, budget)
  local t, done = log.p .. ':t', 0
  local members = call('ZRANGEBYSCORE', t, '-inf', now, 'LIMIT', 0, budget)
  for _, member in ipairs(members) do
    forget_retained(log.q, tonumber(member:sub(2)))
    call('ZREM', t, member)
    done = done + 1
  end
  return done
end

local function first_of(key)
  local first = call('ZRANGE', key, 0, 0, 'WITHSCORES')
  return first[2] and tonumber(first[2]) or NEVER
end

local fill -- groups.lua

-- Brings a reading up to `now` in a bounded step; answers whether nothing is due any more, and how
-- much it did.
local function settle(r, now)
  local q, done, handled = r.q, true, 0
  -- Not counted: it is done once for each message that was claimed quickly.
  if q.ranges > 0 then
    write_ranges(q, 4 * STEP)
    if q.ranges > 0 then return false, handled end
  end
  if q.due <= now then
    local budget = STEP
    for n = 1, 2 do budget = budget - settle_runs(q, n, now, budget) end
    budget = budget - settle_timers(q, now, budget)
    flush(q)
    handled = STEP - budget
    done = budget > 0
    if done then
      q.due = min(first_of(q.p .. ':e1'), first_of(q.p .. ':e2'), first_of(q.p .. ':t'))
    end
  end
  if r ~= q and r.due <= now and handled < STEP then
    local budget, did = STEP - handled, 0
    if r.p == q.p .. ':log' then
      did = settle_log(r, now, budget)
    elseif r.fill_up_to > 0 then
      did = fill(q, r, now, budget)
    else
      did = settle_timers(r, now, budget)
    end
    flush(q)
    handled = handled + did
    if did < budget and r.fill_up_to == 0 then
      r.due = first_of(r.p .. ':t')
    else
      done = false
    end
  end
  return done, handled
end
