-- How a message is appended to a queue.
--
-- A queue has two streams. Stream 1 has the messages that are visible when they are posted, have no
-- key and belong to the queue alone; stream 2 has all others. Messages of stream 1 after the
-- queue's cursor are *fresh*: ready, and in no index.

-- Records when a message of a stream expires. A message that expires no earlier than the one before
-- it belongs to that one's run; another starts a run.
local function record_expiry(q, n, sequence, expires)
  local tail = n == 1 and q.tail_expiry1 or q.tail_expiry2
  if expires < tail then
    q.expiry_runs = q.expiry_runs + call('ZADD', q.p .. KEY_EXPIRY .. n, expires, sequence)
    schedule(q, expires)
  end
  if n == 1 then q.tail_expiry1 = expires else q.tail_expiry2, q.has_stream2 = expires, 1 end
end

-- Extends the ttl of a message that expires slightly earlier than the one before it, because the
-- clock of its node is behind; so both stay in one run.
local function join_expiry_run(message, expires, tail, posted, last_posted_at)
  if expires >= tail or posted >= last_posted_at or tail == NEVER
    or tail - expires > MAX_EXPIRY_DELAY then
    return message, expires
  end
  return message:sub(1, HEADER_EXPIRES_OFFSET) .. pack(TIME, tail)
    .. message:sub(HEADER_EXPIRES_OFFSET + TIME_BYTES + 1), tail
end

-- Appends a message to a stream; the caller adds it to the queue and its groups.
local function append_to_stream(q, n, message, expires)
  local sequence = q.last + 1
  q.last = sequence
  local stream = n == 1 and q.p .. KEY_MESSAGES_1 or q.p .. KEY_MESSAGES_2
  call('XADD', stream, decimal(sequence), 'm', message)
  record_expiry(q, n, sequence, expires)
  return sequence
end

-- Removes a message from the retention log.
local function remove_retained(q, sequence)
  local log = retention_log(q)
  if log and call('ZREM', log.p .. KEY_READY, sequence) == 1 then
    call('HDEL', log.p .. KEY_DELIVERY, sequence)
    call('ZREM', log.p .. KEY_TIMERS, TIMER_MESSAGE .. sequence)
    drop_reference(q, sequence)
  end
end

local function ensure_retention_log(q)
  local log = retention_log(q)
  if log then return log end
  q.has_retention_log = 1
  return attach(q, new_state(q.p .. KEY_RETENTION_LOG, q.p, ''))
end

-- Appends a message to a queue, its groups and, if the message is retained, its retention log.
local function enqueue(q, message, now)
  local posted, visible, expires, _, flags = header_of(message)
  q.posted = true
  if flags == FORMAT_V1 and visible <= now and q.groups == 0 then
    message, expires = join_expiry_run(message, expires, q.tail_expiry1, posted, q.last_posted_at)
    q.last_posted_at = max(q.last_posted_at, posted)
    q.ready, q.fresh, q.newly_claimable = q.ready + 1, q.fresh + 1, q.newly_claimable + 1
    return append_to_stream(q, 1, message, expires)
  end
  local sequence = append_to_stream(q, 2, message, expires)
  local references = 1
  insert(q, sequence, initial_delivery('', message), now)
  for _, s in ipairs(group_states(q)) do
    insert(s, sequence, initial_delivery('', message), now)
    s.posted = true
    references = references + 1
  end
  if has(flags, FLAG_RETAINED) then
    local log = ensure_retention_log(q)
    call('ZADD', log.p .. KEY_READY, sequence, sequence)
    references = references + 1
  end
  if references > 1 then
    call('HSET', q.p .. KEY_REFERENCES, sequence, references)
    q.shared_messages = q.shared_messages + 1
  end
  return sequence
end

-- Returns the sequence of the message that was posted with a deduplication id, if its window has
-- not ended. Otherwise starts a window for the message that is appended next.
local function find_duplicate(q, id, window_end, now)
  local raw = call('HGET', q.p .. KEY_DEDUPLICATION, id)
  if raw then
    local sequence, ends = unpack_bytes(DEDUPLICATION, raw)
    if ends > now then return sequence end
  end
  call('HSET', q.p .. KEY_DEDUPLICATION, id, pack(DEDUPLICATION, q.last + 1, window_end))
  call('ZADD', q.p .. KEY_TIMERS, window_end, TIMER_DEDUPLICATION .. id)
  schedule(q, window_end)
end
