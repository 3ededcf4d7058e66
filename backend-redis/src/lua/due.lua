-- Applies what is due: messages and claims expire, delays end.

-- Removes an expired message from the queue, the groups and the retention log that have it as it
-- was posted. The others have a timer for it.
local function expire_as_posted(q, sequence, n, message)
  if n == 1 and sequence > q.cursor then
    remove(q, sequence, initial_delivery(STATE_FRESH, message))
    q.expired = q.expired + 1
    return
  end
  local function remove_from(s)
    if call('HEXISTS', s.p .. KEY_DELIVERY, sequence) == 1 then return false end
    local m = initial_delivery(STATE_READY, message)
    if call('ZSCORE', s.p .. KEY_DELAYED, sequence) then
      m.state = STATE_DELAYED
    elseif m.key then
      m.state = STATE_READY_KEYED
      if not call('ZSCORE', s.p .. KEY_READY_KEYED, sequence) then return false end
    elseif not call('ZSCORE', s.p .. KEY_READY, sequence) then
      return false
    end
    remove(s, sequence, m)
    return true
  end
  if remove_from(q) then q.expired = q.expired + 1 end
  for _, s in ipairs(group_states(q)) do remove_from(s) end
  local log = retention_log(q)
  if log and call('HEXISTS', log.p .. KEY_DELIVERY, sequence) == 0 then
    remove_retained(q, sequence)
  end
end

-- Removes the expired messages of a stream's expiry runs; returns how many messages it processed.
local function apply_expiry_runs(q, n, now, budget)
  local expiry, stream, done = q.p .. KEY_EXPIRY .. n, q.p .. KEY_MESSAGES .. n, 0
  while done < budget do
    local from = call('ZRANGEBYSCORE', expiry, '-inf', now, 'LIMIT', 0, 1)[1]
    if not from then break end
    local entries = call('XRANGE', stream, from, '+', 'COUNT', CHUNK)
    local next_start, next_expires
    for _, found in ipairs(entries) do
      local message = found[2][2]
      local _, _, expires = unpack_bytes(HEADER_TIMES, message)
      if expires > now then
        next_start, next_expires = found[1]:sub(1, -3), expires
        break
      end
      expire_as_posted(q, sequence_of(found[1]), n, message)
      done = done + 1
    end
    if not next_start and #entries == CHUNK then
      next_start, next_expires = decimal(sequence_of(entries[CHUNK][1]) + 1), now
    end
    q.expiry_runs = q.expiry_runs - call('ZREM', expiry, from)
    if not next_start then
      -- The run was the last one of the stream.
      q['tail_expiry' .. n] = NEVER
    elseif next_expires < NEVER then
      q.expiry_runs = q.expiry_runs + call('ZADD', expiry, next_expires, next_start)
    end
    if #entries == 0 then done = done + 1 end
    -- The next run may begin with a message that this one has removed.
    flush_removals(q)
  end
  return done
end

-- Returns when a claim was renewed, its ttl, and when it expires.
local function read_claim(raw)
  local renewed, ttl, expires = unpack_bytes(CLAIM, raw)
  return renewed, ttl, expires
end

-- Returns the sequences that a claim took.
local function claimed_sequences(raw)
  local all = {}
  for at = CLAIM_BYTES + 1, #raw, SEQUENCE_BYTES do
    all[#all + 1] = (unpack_bytes(SEQUENCE, raw, at))
  end
  return all
end

-- Returns the messages that a claim still holds, as pairs of sequence and delivery state.
local function messages_held_by(s, id, sequences)
  local held = {}
  for from = 1, #sequences, 1000 do
    local part = { unpack(sequences, from, min(from + 999, #sequences)) }
    for i, raw in ipairs(call('HMGET', s.p .. KEY_DELIVERY, unpack(part))) do
      if raw then
        local m = unpack_delivery(raw)
        if m.state == STATE_CLAIMED and m.claim == id then
          held[#held + 1] = { part[i], load_times(m, s.q, part[i]) }
        end
      end
    end
  end
  return held
end

-- Removes an expired message. It counts as expired if the queue itself had it.
local function expire_message(s, sequence, m)
  remove(s, sequence, m)
  if s == s.q then s.q.expired = s.q.expired + 1 end
end

-- Makes the messages of an expired claim ready, at most `budget`; returns how many it processed.
local function expire_claim(s, member, now, budget)
  local id = member:sub(2)
  local raw = call('HGET', s.p .. KEY_CLAIMS, id)
  if not raw then
    call('ZREM', s.p .. KEY_TIMERS, member)
    return 1
  end
  local sequences = claimed_sequences(raw)
  local part = { unpack(sequences, 1, min(#sequences, budget)) }
  for _, pair in ipairs(messages_held_by(s, id, part)) do
    local sequence, m = pair[1], pair[2]
    if m.expires <= now then
      expire_message(s, sequence, m)
    else
      make_ready(s, sequence, m)
    end
  end
  if #part < #sequences then
    local rest = raw:sub(CLAIM_BYTES + 1 + SEQUENCE_BYTES * #part)
    call('HSET', s.p .. KEY_CLAIMS, id, raw:sub(1, CLAIM_BYTES) .. rest)
  else
    call('HDEL', s.p .. KEY_CLAIMS, id)
    call('ZREM', s.p .. KEY_TIMERS, member)
  end
  return max(#part, 1)
end

-- Applies the timer of a message: it expires, or its delay or transfer ends.
local function apply_message_timer(s, member, now)
  local sequence = tonumber(member:sub(2))
  local raw = call('HGET', s.p .. KEY_DELIVERY, sequence)
  local m
  if raw then
    m = unpack_delivery(raw)
  else
    local message = call('ZSCORE', s.p .. KEY_DELAYED, sequence) and read_message(s.q, sequence)
    if message then m = initial_delivery(STATE_DELAYED, message) end
  end
  if not m or m.state == STATE_CLAIMED then
    call('ZREM', s.p .. KEY_TIMERS, member)
  elseif m.expires <= now then
    call('ZREM', s.p .. KEY_TIMERS, member)
    expire_message(s, sequence, m)
  elseif m.state == STATE_IN_TRANSFER or (m.state == STATE_DELAYED and m.visible <= now) then
    call('ZREM', s.p .. KEY_TIMERS, member)
    make_ready(s, sequence, m)
  else
    local due = m.state == STATE_DELAYED and min(m.visible, m.expires) or m.expires
    call('ZADD', s.p .. KEY_TIMERS, due, member)
  end
end

local function apply_timers(s, now, budget)
  local timers, done = s.p .. KEY_TIMERS, 0
  while done < budget do
    local members = call('ZRANGEBYSCORE', timers, '-inf', now, 'LIMIT', 0, CHUNK)
    if #members == 0 then break end
    for _, member in ipairs(members) do
      local kind = member:byte()
      if kind == TIMER_CLAIM_BYTE then
        done = done + expire_claim(s, member, now, budget - done)
      elseif kind == TIMER_MESSAGE_BYTE then
        apply_message_timer(s, member, now)
        done = done + 1
      else
        local id = member:sub(2)
        local raw = call('HGET', s.p .. KEY_DEDUPLICATION, id)
        if raw then
          local _, ends = unpack_bytes(DEDUPLICATION, raw)
          if ends <= now then call('HDEL', s.p .. KEY_DEDUPLICATION, id) end
        end
        call('ZREM', timers, member)
        done = done + 1
      end
      if done >= budget then break end
    end
    -- The next chunk must see the removals that were deferred.
    flush_removals(s.q)
  end
  return done
end

-- Removes retained messages whose expiry was changed and has come.
local function apply_log_timers(log, now, budget)
  local timers, done = log.p .. KEY_TIMERS, 0
  local members = call('ZRANGEBYSCORE', timers, '-inf', now, 'LIMIT', 0, budget)
  for _, member in ipairs(members) do
    remove_retained(log.q, tonumber(member:sub(2)))
    call('ZREM', timers, member)
    done = done + 1
  end
  return done
end

-- Returns the lowest score of a sorted set.
local function first_score(key)
  local first = call('ZRANGE', key, 0, 0, 'WITHSCORES')
  return first[2] and tonumber(first[2]) or NEVER
end

local backfill -- set by groups.lua

-- Applies what is due in a queue or group, at most MAX_STEP messages. Returns whether nothing more
-- is due, and how many messages it processed.
local function apply_due(s, now)
  local q, done, processed = s.q, true, 0
  -- These do not count: each message has them written once.
  if q.deferred_claims > 0 then
    write_deferred_claims(q, 4 * MAX_STEP)
    if q.deferred_claims > 0 then return false, processed end
  end
  if q.due <= now then
    local budget = MAX_STEP
    for n = 1, 2 do budget = budget - apply_expiry_runs(q, n, now, budget) end
    budget = budget - apply_timers(q, now, budget)
    flush_removals(q)
    processed = MAX_STEP - budget
    done = budget > 0
    if done then
      q.due = min(first_score(q.p .. KEY_EXPIRY_1), first_score(q.p .. KEY_EXPIRY_2),
        first_score(q.p .. KEY_TIMERS))
    end
  end
  if s ~= q and s.due <= now and processed < MAX_STEP then
    local budget, count = MAX_STEP - processed, 0
    if s.p == q.p .. KEY_RETENTION_LOG then
      count = apply_log_timers(s, now, budget)
    elseif s.backfill_up_to > 0 then
      count = backfill(q, s, now, budget)
    else
      count = apply_timers(s, now, budget)
    end
    flush_removals(q)
    processed = processed + count
    if count < budget and s.backfill_up_to == 0 then
      s.due = first_score(s.p .. KEY_TIMERS)
    else
      done = false
    end
  end
  return done, processed
end
