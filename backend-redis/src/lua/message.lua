-- How a message is stored, and how it is found.
--
-- A stream keeps each message as its header and its body in one string. A queue or group that has
-- changed a message since the post also keeps a delivery state of it. A message without one is as
-- it was posted.

-- Returns the times at which a message was posted, becomes visible and expires, its ttl, flags and
-- key, and where the rest of the header begins.
local function header_of(message)
  return unpack_bytes(HEADER, message)
end

local function has(flags, flag)
  return floor(flags / flag) % 2 == 1
end

-- Returns a message of the queue and the number of its stream.
local function read_message(q, sequence)
  local found = call('XRANGE', q.p .. KEY_MESSAGES_1, sequence, sequence)[1]
  if found then return found[2][2], 1 end
  found = call('XRANGE', q.p .. KEY_MESSAGES_2, sequence, sequence)[1]
  if found then return found[2][2], 2 end
end

-- Returns the sequence in the id of a stream entry, which ends in '-0'.
local function sequence_of(id)
  return tonumber(id:sub(1, -3))
end

-- Returns the delivery state of a message that is as it was posted.
local function initial_delivery(state, message)
  local _, visible, expires, ttl, flags, key = header_of(message)
  return { state = state, expires = expires, visible = visible, ttl = ttl, count = 0,
    dead_letter = has(flags, FLAG_DEAD_LETTER), key = has(flags, FLAG_KEYED) and key or nil,
    as_posted = true }
end

-- Reads a delivery state. A short one has only the claim: load_times adds the times.
local function unpack_delivery(raw)
  if raw:byte() == SHORT_DELIVERY_BYTE then
    return { state = STATE_CLAIMED, claim = raw:sub(2), count = 1, dead_letter = false,
      short = true }
  end
  local m = {}
  local state, keyed, dead_letter, claimed
  state, keyed, dead_letter, claimed, m.expires, m.visible, m.ttl, m.count, m.claim, m.key =
    unpack_bytes(DELIVERY, raw)
  m.state = state
  m.dead_letter = dead_letter == 1
  if claimed == 0 then m.claim = nil end
  if keyed == 0 then m.key = nil end
  return m
end

local function load_times(m, q, sequence)
  if m.short then
    local _, visible, expires, ttl = header_of((read_message(q, sequence)))
    m.visible, m.expires, m.ttl, m.short = visible, expires, ttl, nil
  end
  return m
end

local function pack_delivery(m)
  local key = m.key or ''
  return pack(DELIVERY, m.state, m.key and 1 or 0, m.dead_letter and 1 or 0,
    m.claim and 1 or 0, m.expires, m.visible, m.ttl, m.count, m.claim or NO_CLAIM, #key, key)
end

local function store_delivery(s, sequence, m)
  call('HSET', s.p .. KEY_DELIVERY, sequence, pack_delivery(m))
end

-- Returns the suffix of the index that lists ready or delayed messages.
local function index_of(state)
  if state == STATE_READY then return KEY_READY end
  if state == STATE_READY_KEYED then return KEY_READY_KEYED end
  return KEY_DELAYED
end

-- Returns the delivery state of a message, nil if the queue or group does not have the message.
-- What is due must have been applied.
local function find_message(s, sequence, now)
  local raw = call('HGET', s.p .. KEY_DELIVERY, sequence)
  local q = s.q
  if raw then return unpack_delivery(raw) end
  local message, n = read_message(q, sequence)
  if not message then return nil end
  local m = initial_delivery(STATE_FRESH, message)
  if s == q and n == 1 and sequence > q.cursor then return m end
  -- The indexes decide, because this node's clock may be behind another's; the clock only says
  -- which index is the likely one.
  local states = { m.key and STATE_READY_KEYED or STATE_READY, STATE_DELAYED }
  if m.visible > now then states[1], states[2] = states[2], states[1] end
  for _, state in ipairs(states) do
    if call('ZSCORE', s.p .. index_of(state), sequence) then
      m.state = state
      return m
    end
  end
end
