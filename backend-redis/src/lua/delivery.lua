-- How a message moves between the states ready, delayed and claimed, and how it is removed.

-- Adds a message to the index of ready ones; update_key does the rest for one with a key.
local function index_ready(s, sequence, key)
  if key then
    call('ZADD', s.p .. KEY_READY_KEYED, sequence, sequence)
    call('ZADD', s.p .. KEY_KEY_ORDER, 0, key_order_member(key, sequence))
    s.ready_keyed = s.ready_keyed + 1
  else
    call('ZADD', s.p .. KEY_READY, sequence, sequence)
    s.ready = s.ready + 1
    s.newly_claimable = s.newly_claimable + 1
  end
end

-- Removes a message from the index of its state, and from the counts of the state and of its key.
local function detach(s, sequence, m)
  local state = m.state
  if state == STATE_CLAIMED then
    defer_removal(s, 'removed_claimed', sequence)
    s.claimed = s.claimed - 1
    if m.key then update_key(s, m.key, 0, -1) end
  elseif state == STATE_READY then
    call('ZREM', s.p .. KEY_READY, sequence)
    s.ready = s.ready - 1
  elseif state == STATE_FRESH then
    s.ready, s.fresh = s.ready - 1, s.fresh - 1
  elseif state == STATE_READY_KEYED then
    call('ZREM', s.p .. KEY_READY_KEYED, sequence)
    call('ZREM', s.p .. KEY_KEY_ORDER, key_order_member(m.key, sequence))
    s.ready_keyed = s.ready_keyed - 1
    update_key(s, m.key, -1, 0)
  elseif state == STATE_DELAYED then
    call('ZREM', s.p .. KEY_DELAYED, sequence)
    s.delayed = s.delayed - 1
    if m.key and m.count > 0 then update_key(s, m.key, 0, -1) end
  else
    defer_removal(s, 'removed_claimed', sequence)
    s.claimed = s.claimed - 1
  end
end

-- Drops the reference of a queue, group or retention log to a message; the last one deletes it.
local function drop_reference(q, sequence)
  if q.shared_messages > 0 then
    local references = call('HGET', q.p .. KEY_REFERENCES, sequence)
    if references then
      if references == '2' then
        call('HDEL', q.p .. KEY_REFERENCES, sequence)
        q.shared_messages = q.shared_messages - 1
      else
        call('HINCRBY', q.p .. KEY_REFERENCES, sequence, -1)
      end
      return
    end
  end
  q.deleted_messages[#q.deleted_messages + 1] = sequence
end

-- Adds a reference to a message. A message with one reference has no count.
local function add_reference(q, sequence)
  local references = call('HINCRBY', q.p .. KEY_REFERENCES, sequence, 1)
  if references == 1 then
    call('HSET', q.p .. KEY_REFERENCES, sequence, 2)
    q.shared_messages = q.shared_messages + 1
  end
end

local function clear_dead_letter_flag(s, sequence)
  if s.dead_letters > 0 then
    s.dead_letters = s.dead_letters - call('ZREM', s.p .. KEY_DEAD_LETTERS, sequence)
  end
end

-- Removes a message from a queue or group.
local function remove(s, sequence, m)
  detach(s, sequence, m)
  if not m.as_posted then
    defer_removal(s, 'removed_delivery', sequence)
  end
  if not m.as_posted and m.state ~= STATE_CLAIMED or m.state == STATE_DELAYED then
    defer_removal(s, 'removed_timers', TIMER_MESSAGE .. sequence)
  end
  clear_dead_letter_flag(s, sequence)
  drop_reference(s.q, sequence)
end

-- Sets the timer of a message.
local function set_timer(s, sequence, time)
  call('ZADD', s.p .. KEY_TIMERS, time, TIMER_MESSAGE .. sequence)
  schedule(s, time)
end

-- Makes a message ready that is in no index.
local function insert_ready(s, sequence, m)
  m.state = m.key and STATE_READY_KEYED or STATE_READY
  index_ready(s, sequence, m.key)
  -- A message that is as it was posted expires with its run.
  if m.as_posted then return end
  store_delivery(s, sequence, m)
  set_timer(s, sequence, m.expires)
end

-- Makes a message ready that is claimed, delayed or reserved for a transfer.
local function make_ready(s, sequence, m)
  local state, key = m.state, m.key
  local in_flight = state == STATE_CLAIMED or (state == STATE_DELAYED and m.count > 0)
  if state == STATE_DELAYED then
    call('ZREM', s.p .. KEY_DELAYED, sequence)
    s.delayed = s.delayed - 1
  else
    defer_removal(s, 'removed_claimed', sequence)
    s.claimed = s.claimed - 1
  end
  insert_ready(s, sequence, m)
  if key then update_key(s, key, 1, in_flight and -1 or 0) end
end

local function index_delayed(s, sequence, m)
  call('ZADD', s.p .. KEY_DELAYED, sequence, sequence)
  s.delayed = s.delayed + 1
  if not m.as_posted then store_delivery(s, sequence, m) end
  set_timer(s, sequence, min(m.visible, m.expires))
end

-- Adds a message to a queue or group that does not have it.
local function insert(s, sequence, m, now)
  if m.dead_letter then
    call('ZADD', s.p .. KEY_DEAD_LETTERS, sequence, sequence)
    s.dead_letters = s.dead_letters + 1
  end
  if m.visible > now then
    m.state = STATE_DELAYED
    index_delayed(s, sequence, m)
    return
  end
  insert_ready(s, sequence, m)
  if m.key then update_key(s, m.key, 1, 0) end
end
