-- Ordering keys: at most one claim holds messages of a key at a time.
--
-- A key is available while it has ready messages and none in flight. A message is in flight while
-- it is claimed or waits for a retry. Available keys are served round-robin: each has a rotation
-- number, the lowest is next.

-- Changes how many messages of a key are ready and in flight, and with it whether the key is
-- available.
local function update_key(s, key, more_ready, more_in_flight)
  local raw = call('HGET', s.p .. KEY_KEY_STATES, key)
  local ready, in_flight, rotation = 0, 0, 0
  if raw then ready, in_flight, rotation = unpack_bytes(ORDERING_KEY, raw) end
  ready, in_flight = ready + more_ready, in_flight + more_in_flight
  local available = ready > 0 and in_flight == 0
  if available and rotation == 0 then
    s.rotation = s.rotation + 1
    rotation = s.rotation
    s.available_keys = s.available_keys + 1
    s.newly_claimable = s.newly_claimable + 1
    call('ZADD', s.p .. KEY_AVAILABLE_KEYS, rotation, key)
  elseif rotation > 0 and not available then
    rotation = 0
    s.available_keys = s.available_keys - 1
    call('ZREM', s.p .. KEY_AVAILABLE_KEYS, key)
  end
  if ready == 0 and in_flight == 0 then
    call('HDEL', s.p .. KEY_KEY_STATES, key)
  else
    call('HSET', s.p .. KEY_KEY_STATES, key, pack(ORDERING_KEY, ready, in_flight, rotation))
  end
end

local function rotate_to_back(s, key)
  local raw = call('HGET', s.p .. KEY_KEY_STATES, key)
  if not raw then return end
  local ready, in_flight, rotation = unpack_bytes(ORDERING_KEY, raw)
  if rotation == 0 then return end
  s.rotation = s.rotation + 1
  call('ZADD', s.p .. KEY_AVAILABLE_KEYS, s.rotation, key)
  call('HSET', s.p .. KEY_KEY_STATES, key, pack(ORDERING_KEY, ready, in_flight, s.rotation))
end

-- Returns the member of the set that orders ready messages by key and sequence.
local function key_order_member(key, sequence)
  return key .. '\0' .. pack(ORDERED_SEQUENCE, sequence)
end
