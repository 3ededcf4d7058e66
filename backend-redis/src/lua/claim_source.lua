-- Where the next messages of a claim or a pop come from: an ordering key, or the messages without
-- one. The sources are served round-robin.

-- Returns the available key whose rotation number is the lowest, and the number.
local function next_available_key(s)
  if s.available_keys == 0 then return nil end
  local first = call('ZRANGE', s.p .. KEY_AVAILABLE_KEYS, 0, 0, 'WITHSCORES')
  return first[1], tonumber(first[2])
end

-- Returns the source whose turn it is: a key and false, '' and true for the messages without a key,
-- or nil. `after` is the last sequence without a key that this call has taken.
local function next_source(s, after)
  local key, rotation = next_available_key(s)
  if s.ready > 0 and (not key or (after == 0 and s.unkeyed_rotation <= rotation)) then
    return '', true
  end
  return key, false
end

-- Returns ready messages without a key after a sequence, in order: { sequence, delivery state,
-- message }.
local function unkeyed_candidates(s, after, wanted)
  local q, found = s.q, {}
  local indexed = {}
  if s.ready > s.fresh then
    indexed = call('ZRANGEBYSCORE', s.p .. KEY_READY, '(' .. after, '+inf', 'LIMIT', 0, wanted)
  end
  local fresh = {}
  if s.fresh > 0 then
    local from = decimal(max(s.cursor, after) + 1)
    fresh = call('XRANGE', s.p .. KEY_MESSAGES_1, from, '+', 'COUNT', wanted)
  end
  local i, j = 1, 1
  while #found < wanted do
    local a = indexed[i] and tonumber(indexed[i])
    local b = fresh[j] and sequence_of(fresh[j][1])
    if not a and not b then break end
    if a and (not b or a < b) then
      i = i + 1
      local message = read_message(q, a)
      local raw = call('HGET', s.p .. KEY_DELIVERY, a)
      local m = raw and unpack_delivery(raw) or initial_delivery(STATE_READY, message)
      found[#found + 1] = { a, m, message }
    else
      local message = fresh[j][2][2]
      j = j + 1
      found[#found + 1] = { b, initial_delivery(STATE_FRESH, message), message }
    end
  end
  return found
end

-- Returns the first ready messages of a key.
local function keyed_candidates(s, key, wanted)
  local found = {}
  local from, to = '[' .. key .. '\0', '(' .. key .. '\1'
  local members = call('ZRANGEBYLEX', s.p .. KEY_KEY_ORDER, from, to, 'LIMIT', 0, wanted)
  for _, member in ipairs(members) do
    local sequence = unpack_bytes(ORDERED_SEQUENCE, member, #key + 2)
    local message = read_message(s.q, sequence)
    local raw = call('HGET', s.p .. KEY_DELIVERY, sequence)
    local m = raw and unpack_delivery(raw) or initial_delivery(STATE_READY_KEYED, message)
    found[#found + 1] = { sequence, m, message }
  end
  return found
end

local function candidates(s, key, is_unkeyed, after, wanted)
  local found
  if is_unkeyed then
    found = unkeyed_candidates(s, after, wanted)
  else
    found = keyed_candidates(s, key, wanted)
  end
  if #found == 0 then error('the counters of ' .. s.p .. ' are wrong') end
  return found
end

-- Moves the messages without a key to the back of the rotation.
local function rotate_unkeyed_to_back(s)
  if s.available_keys > 0 then
    s.rotation = s.rotation + 1
    s.unkeyed_rotation = s.rotation
  end
end

-- Takes a ready message out of its index and the counts; update_key does the rest for its key.
local function take(s, sequence, m)
  if m.state == STATE_FRESH then
    s.fresh = s.fresh - 1
    s.cursor = sequence
    s.ready = s.ready - 1
  elseif m.state == STATE_READY then
    call('ZREM', s.p .. KEY_READY, sequence)
    s.ready = s.ready - 1
  else
    call('ZREM', s.p .. KEY_READY_KEYED, sequence)
    call('ZREM', s.p .. KEY_KEY_ORDER, key_order_member(m.key, sequence))
    s.ready_keyed = s.ready_keyed - 1
  end
end

-- Reserves a ready message for a transfer to another queue.
local function reserve_for_transfer(s, sequence, m, now)
  take(s, sequence, m)
  if m.key then update_key(s, m.key, -1, 0) end
  m.state = STATE_IN_TRANSFER
  s.claimed = s.claimed + 1
  call('ZADD', s.p .. KEY_CLAIMED, sequence, sequence)
  store_delivery(s, sequence, m)
  set_timer(s, sequence, min(m.expires, now + TRANSFER_TIMEOUT))
end

local function by_sequence(a, b)
  return a[1] < b[1]
end
