-- Claims and pops.

-- The open line whose turn it is, with its turn.
local function first_open(r)
  if r.open_lines == 0 then return nil end
  local first = call('ZRANGE', r.p .. ':o', 0, 0, 'WITHSCORES')
  return first[1], tonumber(first[2])
end

-- Whose turn it is: a key, '' and true for the messages without one, or nil. `after` is how far
-- those were looked at.
local function next_side(r, after)
  local key, turn = first_open(r)
  if r.ready > 0 and (not key or (after == 0 and r.plain_turn <= turn)) then return '', true end
  return key, false
end

-- Free messages without a key behind `after`, in order: { sequence, record, message }.
local function plain_candidates(r, after, wanted)
  local q, found = r.q, {}
  local indexed = {}
  if r.ready > r.fresh then
    indexed = call('ZRANGEBYSCORE', r.p .. ':f', '(' .. after, '+inf', 'LIMIT', 0, wanted)
  end
  local fresh = {}
  if r.fresh > 0 then
    local from = text(max(r.cursor, after) + 1)
    fresh = call('XRANGE', r.p .. ':1', from, '+', 'COUNT', wanted)
  end
  local i, j = 1, 1
  while #found < wanted do
    local a = indexed[i] and tonumber(indexed[i])
    local b = fresh[j] and sequence_of(fresh[j][1])
    if not a and not b then break end
    if a and (not b or a < b) then
      i = i + 1
      local message = entry(q, a)
      local raw = call('HGET', r.p .. ':m', a)
      found[#found + 1] = { a, raw and read_record(raw) or fresh_record('f', message), message }
    else
      local message = fresh[j][2][2]
      j = j + 1
      found[#found + 1] = { b, fresh_record('n', message), message }
    end
  end
  return found
end

-- The first messages that wait in a line.
local function line_candidates(r, key, wanted)
  local found = {}
  local members = call('ZRANGEBYLEX', r.p .. ':x', '[' .. key .. '\0', '(' .. key .. '\1', 'LIMIT', 0, wanted)
  for _, member in ipairs(members) do
    local sequence = unpack_bytes('>I6', member, #key + 2)
    local message = entry(r.q, sequence)
    local raw = call('HGET', r.p .. ':m', sequence)
    found[#found + 1] = { sequence, raw and read_record(raw) or fresh_record('l', message), message }
  end
  return found
end

local function candidates(r, key, is_plain, after, wanted)
  if is_plain then return plain_candidates(r, after, wanted) end
  return line_candidates(r, key, wanted)
end

-- Takes a free message out of its index, but not out of its line's count.
local function pick(r, sequence, m)
  if m.state == 'n' then
    r.fresh = r.fresh - 1
    r.cursor = sequence
    r.ready = r.ready - 1
  elseif m.state == 'f' then
    call('ZREM', r.p .. ':f', sequence)
    r.ready = r.ready - 1
  else
    call('ZREM', r.p .. ':l', sequence)
    call('ZREM', r.p .. ':x', place_in_line(m.key, sequence))
    r.in_line = r.in_line - 1
  end
end

-- Writes a claim on a message, which lives on with it if it would expire before.
local function hold(m, id, ttl, grace, now)
  m.claim = id
  if m.expires < now + ttl * 1000 then
    m.ttl = ttl + grace
    m.expires = min(now + m.ttl * 1000, NEVER)
  end
end

-- Keeps a free message for whoever moves it elsewhere.
local function begin_move(r, sequence, m, now)
  pick(r, sequence, m)
  if m.key then shift(r, m.key, -1, 0) end
  m.state = 't'
  r.claimed = r.claimed + 1
  call('ZADD', r.p .. ':c', sequence, sequence)
  put_record(r, sequence, m)
  set_timer(r, sequence, min(m.expires, now + MOVING))
end

local function by_sequence(a, b)
  return a[1] < b[1]
end

-- Adds a message to an answer: sequence, message, record or ''.
local function say(answer, sequence, m, message)
  local n = #answer
  answer[n + 1], answer[n + 2], answer[n + 3] = sequence, message, m.plain and '' or pack_record(m)
end

local AGAIN, OK, UNKNOWN = 1, 0, 2

-- Records a claim on some messages, by their packed sequences.
local function record_claim(r, now, id, ttl, sequences)
  local expires = now + ttl * 1000
  call('HSET', r.p .. ':h', id, pack('<I6I5I6', now, ttl, expires) .. sequences)
  call('ZADD', r.p .. ':t', text(expires), 'c' .. id)
  lower(r, expires)
end

-- The messages that a queue's first run began with may be gone: it begins with the next one.
local function renew_first_run(q)
  local e = q.p .. ':e1'
  local first = call('ZRANGE', e, 0, 0)[1]
  local found = first and call('XRANGE', q.p .. ':1', first, '+', 'COUNT', 1)[1]
  if not found then return end
  local name = found[1]:sub(1, -3)
  local _, _, expires = unpack_bytes('<I6I6I6', found[2][2])
  if name ~= first and expires < NEVER then
    q.runs = q.runs - call('ZREM', e, first) + call('ZADD', e, text(expires), name)
  end
end

-- Claims the next fresh messages of a queue if nothing else can be claimed and neither their
-- sequences nor their times have to be looked up: only the first fields of the queue's state are read
-- and written. Answers the first and the last of them, which who asks reads; nil if it takes more
-- than that, and nothing was changed.
local function claim_range(keys, now, id, ttl, limit)
  local p = keys[1]
  local raw = call('GET', p)
  if not raw then return nil end
  local last, ready, fresh, tail, stamp, due, groups, kind, cursor, delayed, claimed, ranges, _, _, _,
    _, open_lines = hot_fields(raw)
  local lapses = now + ttl * 1000
  if kind ~= 0 or due <= now or fresh == 0 or ready ~= fresh or open_lines > 0
    or fresh ~= last - cursor or min(limit, fresh) > 1000 or (keys[4] and call('EXISTS', keys[4]) == 0) then
    return nil
  end
  local expires = call('ZRANGE', p .. ':e1', 0, 0, 'WITHSCORES')[2]
  if expires and tonumber(expires) < lapses then return nil end
  local count, first = min(limit, fresh), cursor + 1
  local sequences = {}
  for i = 1, count do sequences[i] = cursor + i end
  ranges = ranges + call('ZADD', p .. ':v', text(first), id)
  local held = pack('<' .. ('I6'):rep(count), unpack(sequences))
  call('HSET', p .. ':h', id, pack('<I6I5I6', now, ttl, lapses) .. held)
  local score = text(lapses)
  call('ZADD', p .. ':t', score, 'c' .. id)
  if lapses < due then
    due = lapses
    call('ZADD', keys[2], score, p)
    call('SPUBLISH', p .. ':w', format('0 0 %d', due))
  end
  call('SETRANGE', p, 0, pack('<dddddddddddd', last, ready - count, fresh - count, tail, stamp, due,
    groups, kind, cursor + count, delayed, claimed + count, ranges))
  return { OK, 0, 0, first, cursor + count }
end

-- Claims messages of a queue where all that can be claimed are fresh ones.
local function claim_fresh(q, now, id, ttl, grace, limit)
  -- So that the next claim may be a quick one.
  renew_first_run(q)
  local answer, sequences, records, places = { OK, 0, 0, 0, 0 }, {}, {}, {}
  if q.fresh > 0 then
    local lapses = now + ttl * 1000
    local longer = ttl + grace
    local lives_until = min(now + longer * 1000, NEVER)
    local from = text(q.cursor + 1)
    for i, found in ipairs(call('XRANGE', q.p .. ':1', from, '+', 'COUNT', limit)) do
      local message, name = found[2][2], found[1]:sub(1, -3)
      local _, visible, expires, own_ttl = unpack_bytes('<I6I6I6I5', message)
      if expires < lapses then expires, own_ttl = lives_until, longer end
      local record = pack('<c1BBBI6I6I5I4c16H', 'c', 0, 0, 1, expires, visible, own_ttl, 1, id, 0)
      local sequence = tonumber(name)
      records[2 * i - 1], records[2 * i] = name, record
      places[2 * i - 1], places[2 * i] = name, name
      sequences[i] = pack('<I6', sequence)
      local n = 3 * i + 3
      answer[n], answer[n + 1], answer[n + 2] = sequence, message, record
      q.cursor = sequence
    end
  end
  local count = #sequences
  if count > 0 then
    q.ready, q.fresh, q.claimed = q.ready - count, q.fresh - count, q.claimed + count
    bulk('HSET', q.p .. ':m', records)
    bulk('ZADD', q.p .. ':c', places)
    record_claim(q, now, id, ttl, table.concat(sequences))
  end
  finish(q)
  answer[2], answer[3] = q.expired, count
  return answer
end

-- KEYS: reading, registry, guard, maybe the dead-letter queue if it is in the same slot.
-- ARGV: now, claim, ttl, grace, limit, maximum claim count and key of the dead-letter queue, or ''.
-- Answers { status, expired, how many messages were taken and follow, the first and the last that
-- were taken and do not follow or 0 and 0, messages …, letters … }.
local function claim(keys, args)
  local now, id, ttl, grace = tonumber(args[1]), args[2], tonumber(args[3]), tonumber(args[4])
  local limit, maximum = tonumber(args[5]), tonumber(args[6])
  if not maximum or maximum > 0 then
    local answer = claim_range(keys, now, id, ttl, limit)
    if answer then return answer end
  end
  local r = open(keys)
  if not r then return { OK, 0, 0, 0, 0 } end
  local q = r.q
  if args[7] == r.p or args[7] == q.p then maximum = nil end
  if not settle(r, now) then
    finish(q)
    return { AGAIN, q.expired, 0, 0, 0 }
  end
  if keys[4] and call('EXISTS', keys[4]) == 0 then
    finish(q)
    return { UNKNOWN, q.expired, 0, 0, 0 }
  end
  if r == q and r.ready == r.fresh and r.open_lines == 0 and (not maximum or maximum > 0) then
    return claim_fresh(r, now, id, ttl, grace, limit)
  end
  local taken, letters, after, bytes = {}, {}, 0, 0
  while #taken < limit do
    local key, is_plain = next_side(r, after)
    if not key then break end
    local found = candidates(r, key, is_plain, after, limit - #taken)
    if #found == 0 then error('the counters of ' .. r.p .. ' are wrong') end
    local before = #taken
    for _, one in ipairs(found) do
      local sequence, m = one[1], one[2]
      if is_plain then after = sequence end
      if maximum and m.count >= maximum then
        begin_move(r, sequence, m, now)
        letters[#letters + 1] = one
        bytes = bytes + #one[3]
      else
        pick(r, sequence, m)
        hold(m, id, ttl, grace, now)
        if not m.plain then put_away(r, 'dead_t', 'm' .. sequence) end
        m.plain = nil
        m.state = 'c'
        m.count = m.count + 1
        taken[#taken + 1] = one
      end
    end
    local count = #taken - before
    if is_plain then
      if r.open_lines > 0 then
        r.turns = r.turns + 1
        r.plain_turn = r.turns
      end
    elseif count > 0 then
      shift(r, key, -count, count)
    end
    if #letters >= STEP or bytes >= 1048576 then break end
  end
  table.sort(taken, by_sequence)
  local answer = { OK, 0, #taken, 0, 0 }
  if #taken > 0 then
    local records, places, sequences = {}, {}, {}
    for i, one in ipairs(taken) do
      local sequence, m = one[1], one[2]
      local record = pack_record(m)
      records[2 * i - 1], records[2 * i] = sequence, record
      places[2 * i - 1], places[2 * i] = sequence, sequence
      sequences[i] = pack('<I6', sequence)
      local n = 3 * i + 3
      answer[n], answer[n + 1], answer[n + 2] = sequence, one[3], record
    end
    bulk('HSET', r.p .. ':m', records)
    bulk('ZADD', r.p .. ':c', places)
    r.claimed = r.claimed + #taken
    record_claim(r, now, id, ttl, table.concat(sequences))
  elseif #letters >= STEP or bytes >= 1048576 then
    answer[1] = AGAIN
  end
  for _, one in ipairs(letters) do say(answer, one[1], one[2], one[3]) end
  finish(q)
  answer[2] = q.expired
  return answer
end

-- A claim that is alive: its record.
local function live_claim(r, id, now)
  local raw = call('HGET', r.p .. ':h', id)
  if not raw then return nil end
  local _, _, expires = read_claim(raw)
  if expires > now then return raw end
end

-- Looks a reading up and settles it. If it is unknown or has to be settled on, the second value is
-- the answer of the call.
local function settled(keys, now)
  local r = open(keys)
  if not r then return nil, { UNKNOWN, 0 } end
  if not settle(r, now) then
    finish(r.q)
    return nil, { AGAIN, r.q.expired }
  end
  return r
end

-- ARGV: now, claim. Answers { status, expired, renewed, ttl, messages … }.
local function get_claim(keys, args)
  local now, id = tonumber(args[1]), args[2]
  local r, answer = settled(keys, now)
  if not r then return answer end
  local raw = live_claim(r, id, now)
  if not raw then
    finish(r.q)
    return { UNKNOWN, r.q.expired }
  end
  local renewed, ttl = read_claim(raw)
  answer = { OK, 0, renewed, ttl }
  for _, pair in ipairs(held_by(r, id, claimed_sequences(raw))) do
    say(answer, pair[1], pair[2], (entry(r.q, pair[1])))
  end
  finish(r.q)
  answer[2] = r.q.expired
  return answer
end

-- ARGV: now, claim, ttl, grace.
local function renew(keys, args)
  local now, id, ttl, grace = tonumber(args[1]), args[2], tonumber(args[3]), tonumber(args[4])
  local r, answer = settled(keys, now)
  if not r then return answer end
  local raw = live_claim(r, id, now)
  if not raw then
    finish(r.q)
    return { UNKNOWN, r.q.expired }
  end
  local records, sequences = {}, {}
  for _, pair in ipairs(held_by(r, id, claimed_sequences(raw))) do
    hold(pair[2], id, ttl, grace, now)
    records[#records + 1] = pair[1]
    records[#records + 1] = pack_record(pair[2])
    sequences[#sequences + 1] = pack('<I6', pair[1])
  end
  bulk('HSET', r.p .. ':m', records)
  record_claim(r, now, id, ttl, table.concat(sequences))
  finish(r.q)
  return { OK, r.q.expired }
end

-- ARGV: now, claim.
local function release_claim(keys, args)
  local now, id = tonumber(args[1]), args[2]
  local r, answer = settled(keys, now)
  if not r then return answer end
  local raw = live_claim(r, id, now)
  if raw then
    for _, pair in ipairs(held_by(r, id, claimed_sequences(raw))) do
      pair[2].claim = nil
      free(r, pair[1], pair[2])
    end
    call('HDEL', r.p .. ':h', id)
    call('ZREM', r.p .. ':t', 'c' .. id)
  end
  finish(r.q)
  return { OK, r.q.expired }
end

-- Frees a claimed message, at once or later.
local function put_back(r, sequence, m, retry, now)
  m.claim = nil
  if retry <= now then
    free(r, sequence, m)
    return
  end
  put_away(r, 'dead_c', sequence)
  r.claimed = r.claimed - 1
  m.state, m.visible = 'd', retry
  index_delayed(r, sequence, m)
end

-- ARGV: now, claim, then sequence and the time of the retry of each, '' for what is done.
-- Answers { status, expired, 1 or 0 for each }.
local function acknowledge(keys, args)
  local now, id = tonumber(args[1]), args[2]
  local done = {}
  for i = 3, #args, 2 do
    if args[i + 1] ~= '' or i > 1000 then
      done = nil
      break
    end
    done[#done + 1] = args[i]
  end
  -- The usual case: all went well.
  if done and #done > 0 and delete_claimed(keys[1], now, done, id) then
    local answer = { OK, 0 }
    for i = 1, #done do answer[i + 2] = 1 end
    return answer
  end
  local r, answer = settled(keys, now)
  if not r then return answer end
  answer = { OK, 0 }
  local seen, handled = {}, 0
  for i = 3, #args, 2 do
    local name, retry, taken = args[i], tonumber(args[i + 1]), 0
    local raw = not seen[name] and call('HGET', r.p .. ':m', name)
    local m = raw and read_record(raw)
    if m and m.state == 'c' and m.claim == id then
      seen[name], taken = true, 1
      if retry then
        put_back(r, tonumber(name), complete(m, r.q, name), retry, now)
      else
        remove(r, tonumber(name), m)
        handled = handled + 1
      end
    end
    answer[#answer + 1] = taken
  end
  count_handled(r, handled, now)
  finish(r.q)
  answer[2] = r.q.expired
  return answer
end

-- ARGV: now, limit. Answers { status, expired, messages … }.
local function pop(keys, args)
  local now, limit = tonumber(args[1]), tonumber(args[2])
  local r, answer = settled(keys, now)
  if not r then return answer end
  local taken, after = {}, 0
  while #taken < limit do
    local key, is_plain = next_side(r, after)
    if not key then break end
    local found = candidates(r, key, is_plain, after, limit - #taken)
    if #found == 0 then error('the counters of ' .. r.p .. ' are wrong') end
    for _, one in ipairs(found) do
      local sequence, m = one[1], one[2]
      if is_plain then after = sequence end
      one[4] = m.plain and '' or pack_record(m)
      if m.state == 'n' then r.cursor = sequence end
      remove(r, sequence, m)
      taken[#taken + 1] = one
    end
    if not is_plain then
      send_to_end(r, key)
    elseif r.open_lines > 0 then
      r.turns = r.turns + 1
      r.plain_turn = r.turns
    end
  end
  count_handled(r, #taken, now)
  table.sort(taken, by_sequence)
  answer = { OK, 0 }
  for i, one in ipairs(taken) do
    local n = 3 * i
    answer[n], answer[n + 1], answer[n + 2] = one[1], one[3], one[4]
  end
  finish(r.q)
  answer[2] = r.q.expired
  return answer
end
