-- Messages: where they stand, and how they come and go.

-- A message is kept as its meta and its body in one piece. Of its meta: when it was posted, becomes visible and expires, its ttl, flags, key, and where the rest begins.
local function meta_of(meta)
  return unpack_bytes('<I6I6I6I5BHc0', meta)
end
local KEYED, LETTER, RETAINED = 1, 2, 4
-- The flags of a message that has none: all have the mark of this form.
local NONE = 32

local function has(flags, flag)
  return floor(flags / flag) % 2 == 1
end

-- A message of the queue (its meta, and behind it its body) and the stream that it is in.
local function entry(q, sequence)
  local found = call('XRANGE', q.p .. ':1', sequence, sequence)[1]
  if found then return found[2][2], 1 end
  found = call('XRANGE', q.p .. ':2', sequence, sequence)[1]
  if found then return found[2][2], 2 end
end

local function sequence_of(id)
  return tonumber(id:sub(1, -3))
end

-- Without a record a message is as it was posted.
local function fresh_record(state, meta)
  local _, visible, expires, ttl, flags, key = meta_of(meta)
  return { state = state, expires = expires, visible = visible, ttl = ttl, count = 0,
    letter = has(flags, LETTER), key = has(flags, KEYED) and key or nil, plain = true }
end

-- A record: what a reading has changed of a message. States: f free, l in line, d delayed,
-- c claimed, t being moved elsewhere. A short one, C and the claim, says that this is all: it has no
-- times until it is completed.
local function read_record(raw)
  if raw:byte() == 67 then
    return { state = 'c', claim = raw:sub(2), count = 1, letter = false, short = true }
  end
  local m = {}
  local state, keyed, letter, claimed
  state, keyed, letter, claimed, m.expires, m.visible, m.ttl, m.count, m.claim, m.key =
    unpack_bytes('<c1BBBI6I6I5I4c16Hc0', raw)
  m.state = state
  m.letter = letter == 1
  if claimed == 0 then m.claim = nil end
  if keyed == 0 then m.key = nil end
  return m
end

local function complete(m, q, sequence)
  if m.short then
    local _, visible, expires, ttl = meta_of((entry(q, sequence)))
    m.visible, m.expires, m.ttl, m.short = visible, expires, ttl, nil
  end
  return m
end

local function pack_record(m)
  local key = m.key or ''
  return pack('<c1BBBI6I6I5I4c16Hc0', m.state, m.key and 1 or 0, m.letter and 1 or 0,
    m.claim and 1 or 0, m.expires, m.visible, m.ttl, m.count, m.claim or NO_CLAIM, #key, key)
end

local function put_record(r, sequence, m)
  call('HSET', r.p .. ':m', sequence, pack_record(m))
end

-- Where a message stands in a settled reading: a record, made up if there is none (`plain`), whose
-- state is 'n' if the message is in no index; nil if the reading does not have it.
local function find(r, sequence, now)
  local raw = call('HGET', r.p .. ':m', sequence)
  local q = r.q
  if raw then return read_record(raw) end
  local meta, n = entry(q, sequence)
  if not meta then return nil end
  local m = fresh_record('n', meta)
  if r == q and n == 1 and sequence > q.cursor then return m end
  -- The indexes know, not the clock: this node's may be behind that of another.
  local states = { m.key and 'l' or 'f', 'd' }
  if m.visible > now then states[1], states[2] = states[2], states[1] end
  for _, state in ipairs(states) do
    if call('ZSCORE', r.p .. ':' .. state, sequence) then
      m.state = state
      return m
    end
  end
end

-- Lines -------------------------------------------------------------------------------------------

-- Changes how many messages of a line wait and are busy; opens and closes it.
local function shift(r, key, more_waiting, more_busy)
  local raw = call('HGET', r.p .. ':k', key)
  local waiting, busy, turn = 0, 0, 0
  if raw then waiting, busy, turn = unpack_bytes('<I6I6I6', raw) end
  waiting, busy = waiting + more_waiting, busy + more_busy
  local opens = waiting > 0 and busy == 0
  if opens and turn == 0 then
    r.turns = r.turns + 1
    turn = r.turns
    r.open_lines = r.open_lines + 1
    r.woke = r.woke + 1
    call('ZADD', r.p .. ':o', turn, key)
  elseif turn > 0 and not opens then
    turn = 0
    r.open_lines = r.open_lines - 1
    call('ZREM', r.p .. ':o', key)
  end
  if waiting == 0 and busy == 0 then
    call('HDEL', r.p .. ':k', key)
  else
    call('HSET', r.p .. ':k', key, pack('<I6I6I6', waiting, busy, turn))
  end
end

local function send_to_end(r, key)
  local raw = call('HGET', r.p .. ':k', key)
  if not raw then return end
  local waiting, busy, turn = unpack_bytes('<I6I6I6', raw)
  if turn == 0 then return end
  r.turns = r.turns + 1
  call('ZADD', r.p .. ':o', r.turns, key)
  call('HSET', r.p .. ':k', key, pack('<I6I6I6', waiting, busy, r.turns))
end

local function place_in_line(key, sequence)
  return key .. '\0' .. pack('>I6', sequence)
end

-- Coming and going --------------------------------------------------------------------------------

-- Puts a message among those that may be claimed, but says nothing of its line.
local function index_free(r, sequence, key)
  if key then
    call('ZADD', r.p .. ':l', sequence, sequence)
    call('ZADD', r.p .. ':x', 0, place_in_line(key, sequence))
    r.in_line = r.in_line + 1
  else
    call('ZADD', r.p .. ':f', sequence, sequence)
    r.ready = r.ready + 1
    r.woke = r.woke + 1
  end
end

-- Takes a message out of the index of its state, out of the counters and out of its line.
local function leave(r, sequence, m)
  local state = m.state
  if state == 'c' then
    put_away(r, 'dead_c', sequence)
    r.claimed = r.claimed - 1
    if m.key then shift(r, m.key, 0, -1) end
  elseif state == 'f' then
    call('ZREM', r.p .. ':f', sequence)
    r.ready = r.ready - 1
  elseif state == 'n' then
    r.ready, r.fresh = r.ready - 1, r.fresh - 1
  elseif state == 'l' then
    call('ZREM', r.p .. ':l', sequence)
    call('ZREM', r.p .. ':x', place_in_line(m.key, sequence))
    r.in_line = r.in_line - 1
    shift(r, m.key, -1, 0)
  elseif state == 'd' then
    call('ZREM', r.p .. ':d', sequence)
    r.delayed = r.delayed - 1
    if m.key and m.count > 0 then shift(r, m.key, 0, -1) end
  else
    put_away(r, 'dead_c', sequence)
    r.claimed = r.claimed - 1
  end
end

-- One reading less has a message; the last one takes it along.
local function release(q, sequence)
  if q.shared > 0 then
    local readings = call('HGET', q.p .. ':r', sequence)
    if readings then
      if readings == '2' then
        call('HDEL', q.p .. ':r', sequence)
        q.shared = q.shared - 1
      else
        call('HINCRBY', q.p .. ':r', sequence, -1)
      end
      return
    end
  end
  q.gone[#q.gone + 1] = sequence
end

-- One reading more has a message.
local function share(q, sequence)
  local readings = call('HINCRBY', q.p .. ':r', sequence, 1)
  if readings == 1 then
    call('HSET', q.p .. ':r', sequence, 2)
    q.shared = q.shared + 1
  end
end

local function forget_letter(r, sequence)
  if r.letters > 0 then r.letters = r.letters - call('ZREM', r.p .. ':z', sequence) end
end

-- Removes a message from a reading.
local function remove(r, sequence, m)
  leave(r, sequence, m)
  if not m.plain then
    put_away(r, 'dead_m', sequence)
  end
  if not m.plain and m.state ~= 'c' or m.state == 'd' then
    put_away(r, 'dead_t', 'm' .. sequence)
  end
  forget_letter(r, sequence)
  release(r.q, sequence)
end

-- Looks at a message again at this time.
local function set_timer(r, sequence, time)
  call('ZADD', r.p .. ':t', time, 'm' .. sequence)
  lower(r, time)
end

-- Removes messages if that is all there is to do: one claim holds them, by its range, it is the one
-- that is named if any is, and the queue has them alone. Only the first fields of the queue's state
-- are read and written. Answers how many there were; nil if it takes more than that, and nothing was
-- changed.
local function delete_claimed(p, now, sequences, wanted)
  local raw = call('GET', p)
  if not raw then return nil end
  local _, ready, _, _, _, due, groups, kind, _, delayed, claimed, ranges, minute, handled, before,
    in_line, _, has_log, letters, shared, runs, second = hot_fields(raw)
  local n = #sequences
  if kind ~= 0 or due <= now or ranges == 0 or groups > 0 or has_log > 0 or letters > 0 or shared > 0
    or runs > 4 or second > 0 or ready + delayed + claimed + in_line <= n then
    return nil
  end
  local id = call('ZREVRANGEBYSCORE', p .. ':v', sequences[1], '-inf', 'LIMIT', 0, 1)[1]
  if not id or (wanted and wanted ~= id) then return nil end
  local claim = call('HGET', p .. ':h', id)
  local rest = {}
  -- Most are done with all at once.
  if claim:sub(18) ~= pack('<' .. ('I6'):rep(n), unpack(sequences)) then
    local going, found = {}, 0
    for i = 1, n do going[pack('<I6', sequences[i])] = true end
    for at = 18, #claim, 6 do
      local sequence = claim:sub(at, at + 5)
      if going[sequence] then found = found + 1 else rest[#rest + 1] = sequence end
    end
    -- Some may be held by others or gone, or named twice.
    if found ~= n then return nil end
  end
  call('HSET', p .. ':h', id, claim:sub(1, 17) .. table.concat(rest))
  if #rest == 0 then
    call('ZREM', p .. ':v', id)
    ranges = ranges - 1
  end
  call('XDEL', p .. ':1', unpack(sequences))
  local r = { minute = minute, handled = handled, before = before }
  count_handled(r, n, now)
  call('SETRANGE', p, CLAIMED_AT,
    pack('<ddddd', claimed - n, ranges, r.minute, r.handled, r.before))
  return n
end

-- Writes claims on their messages which were not written yet; answers on how many.
local function write_ranges(q, budget)
  local written = 0
  while q.ranges > 0 and written < budget do
    local id = call('ZRANGE', q.p .. ':v', 0, 0)[1]
    if not id then
      q.ranges = 0
      break
    end
    local claim = call('HGET', q.p .. ':h', id) or ''
    local record, records, places = 'C' .. id, {}, {}
    for at = 18, #claim, 6 do
      local name = text((unpack_bytes('<I6', claim, at)))
      records[#records + 1], records[#records + 2] = name, record
      places[#places + 1], places[#places + 2] = name, name
    end
    bulk('HSET', q.p .. ':m', records)
    bulk('ZADD', q.p .. ':c', places)
    call('ZREM', q.p .. ':v', id)
    q.ranges = q.ranges - 1
    written = written + max(#records / 2, 1)
  end
  return written
end

-- Makes a message free that was held back, and has left its index. `busy` says whether it counted
-- as busy in its line until now.
local function set_free(r, sequence, m)
  m.state = m.key and 'l' or 'f'
  index_free(r, sequence, m.key)
  if m.plain then return end -- its run knows when it expires
  put_record(r, sequence, m)
  set_timer(r, sequence, m.expires)
end

-- From claimed, delayed or being moved to free.
local function free(r, sequence, m)
  local state, key = m.state, m.key
  local busy = state == 'c' or (state == 'd' and m.count > 0)
  if state == 'd' then
    call('ZREM', r.p .. ':d', sequence)
    r.delayed = r.delayed - 1
  else
    put_away(r, 'dead_c', sequence)
    r.claimed = r.claimed - 1
  end
  set_free(r, sequence, m)
  if key then shift(r, key, 1, busy and -1 or 0) end
end

-- Puts a message that is delayed into the index of those.
local function index_delayed(r, sequence, m)
  call('ZADD', r.p .. ':d', sequence, sequence)
  r.delayed = r.delayed + 1
  if not m.plain then put_record(r, sequence, m) end
  set_timer(r, sequence, min(m.visible, m.expires))
end

-- Puts a message into a reading that does not have it yet.
local function put(r, sequence, m, now)
  if m.letter then
    call('ZADD', r.p .. ':z', sequence, sequence)
    r.letters = r.letters + 1
  end
  if m.visible > now then
    m.state = 'd'
    index_delayed(r, sequence, m)
    return
  end
  set_free(r, sequence, m)
  if m.key then shift(r, m.key, 1, 0) end
end

-- Notes that a message of a stream expires, in a run with those before it if that may be.
local function begin_run(q, n, sequence, expires)
  local tail = n == 1 and q.tail1 or q.tail2
  if expires < tail then
    q.runs = q.runs + call('ZADD', q.p .. ':e' .. n, expires, sequence)
    lower(q, expires)
  end
  if n == 1 then q.tail1 = expires else q.tail2, q.second = expires, 1 end
end

-- A message that expires a little before the one in front of it, because it was posted before that
-- one by the clock of its node, is let expire with it: so they stay one run.
local function in_run(message, expires, tail, posted, stamp)
  if expires >= tail or posted >= stamp or tail == NEVER or tail - expires > SLACK then
    return message, expires
  end
  return message:sub(1, 12) .. pack('<I6', tail) .. message:sub(19), tail
end

-- Writes a message at the end of a queue, for nobody yet.
local function append(q, n, message, expires)
  local sequence = q.last + 1
  q.last = sequence
  call('XADD', n == 1 and q.p .. ':1' or q.p .. ':2', text(sequence), 'm', message)
  begin_run(q, n, sequence, expires)
  return sequence
end

-- Removes a message from what a queue retains.
local function forget_retained(q, sequence)
  local log = log_of(q)
  if log and call('ZREM', log.p .. ':f', sequence) == 1 then
    call('HDEL', log.p .. ':m', sequence)
    call('ZREM', log.p .. ':t', 'm' .. sequence)
    release(q, sequence)
  end
end

local function log_for(q)
  local log = log_of(q)
  if log then return log end
  q.has_log = 1
  return attach(q, blank(q.p .. ':log', q.p, ''))
end

-- Stores a message at the end of a queue, for the queue, its groups and its log.
local function arrive(q, message, now)
  local posted, visible, expires, _, flags = meta_of(message)
  q.posted = true
  if flags == NONE and visible <= now and q.groups == 0 then
    message, expires = in_run(message, expires, q.tail1, posted, q.stamp)
    q.stamp = max(q.stamp, posted)
    q.ready, q.fresh, q.woke = q.ready + 1, q.fresh + 1, q.woke + 1
    return append(q, 1, message, expires)
  end
  local sequence = append(q, 2, message, expires)
  local copies = 1
  put(q, sequence, fresh_record('', message), now)
  for _, r in ipairs(group_readings(q)) do
    put(r, sequence, fresh_record('', message), now)
    r.posted = true
    copies = copies + 1
  end
  if has(flags, RETAINED) then
    local log = log_for(q)
    call('ZADD', log.p .. ':f', sequence, sequence)
    copies = copies + 1
  end
  if copies > 1 then
    call('HSET', q.p .. ':r', sequence, copies)
    q.shared = q.shared + 1
  end
  return sequence
end

-- The message that was posted with a deduplication id, if its window is open; otherwise opens one
-- for the message that comes next.
local function duplicate(q, id, until_, now)
  local raw = call('HGET', q.p .. ':u', id)
  if raw then
    local sequence, ends = unpack_bytes('<I6I6', raw)
    if ends > now then return sequence end
  end
  call('HSET', q.p .. ':u', id, pack('<I6I6', q.last + 1, until_))
  call('ZADD', q.p .. ':t', until_, 'u' .. id)
  lower(q, until_)
end
