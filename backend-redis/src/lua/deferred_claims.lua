-- Deferred claims: the fast path of consumers that only claim and delete.
--
-- Such a claim takes the next fresh messages of a queue. It is stored under the claims with the
-- sequences it holds; nothing is written for each message. The caller reads the messages from the
-- stream itself. A call that needs the delivery states of the messages writes them first.

-- Returns the format that packs `count` sequences.
local function sequences_format(count)
  return '<' .. (SEQUENCE_ITEM):rep(count)
end

-- Claims the next fresh messages of a queue, if nothing else can be claimed and no message expires
-- before the claim does. Reads and writes only the first fields of the state. Returns the reply of
-- `claim`, with the first and the last sequence; nil if nothing was changed because the general
-- path is needed.
local function claim_deferred(keys, now, id, ttl, limit)
  local p = keys[1]
  local raw = call('GET', p)
  if not raw then return nil end
  local {{names last..available_keys}} = unpack_bytes({{format last..available_keys}}, raw)
  local claim_expires = now + ttl * 1000
  if kind ~= KIND_QUEUE or due <= now or fresh == 0 or ready ~= fresh or available_keys > 0
    or fresh ~= last - cursor or min(limit, fresh) > 1000
    or (keys[4] and call('EXISTS', keys[4]) == 0) then
    return nil
  end
  local expires = call('ZRANGE', p .. KEY_EXPIRY_1, 0, 0, 'WITHSCORES')[2]
  if expires and tonumber(expires) < claim_expires then return nil end
  local count, first = min(limit, fresh), cursor + 1
  local sequences = {}
  for i = 1, count do sequences[i] = cursor + i end
  deferred_claims = deferred_claims + call('ZADD', p .. KEY_DEFERRED_CLAIMS, decimal(first), id)
  local held = pack(sequences_format(count), unpack(sequences))
  call('HSET', p .. KEY_CLAIMS, id, pack(CLAIM, now, ttl, claim_expires) .. held)
  local score = decimal(claim_expires)
  call('ZADD', p .. KEY_TIMERS, score, TIMER_CLAIM .. id)
  if claim_expires < due then
    due = claim_expires
    call('ZADD', keys[2], score, p)
    call('SPUBLISH', p .. KEY_EVENTS, format('0 0 %d', due))
  end
  ready, fresh, cursor, claimed = ready - count, fresh - count, cursor + count, claimed + count
  call('SETRANGE', p, {{offset last}},
    pack({{format last..deferred_claims}}, {{names last..deferred_claims}}))
  return { STATUS_OK, 0, 0, first, cursor }
end

-- Deletes messages that one deferred claim holds (the named one, if any), if the queue alone has
-- them. Reads and writes only some fields of the state. Returns how many were deleted; nil if
-- nothing was changed because the general path is needed.
local function delete_deferred(p, now, sequences, named_claim)
  local raw = call('GET', p)
  if not raw then return nil end
  local {{names ready..has_stream2}} =
    unpack_bytes({{format ready..has_stream2}}, raw, {{position ready}})
  local n = #sequences
  if kind ~= KIND_QUEUE or due <= now or deferred_claims == 0 or groups > 0
    or has_retention_log > 0 or dead_letters > 0 or shared_messages > 0 or expiry_runs > 4
    or has_stream2 > 0 or ready + delayed + claimed + ready_keyed <= n then
    return nil
  end
  local claims = p .. KEY_DEFERRED_CLAIMS
  local id = call('ZREVRANGEBYSCORE', claims, sequences[1], '-inf', 'LIMIT', 0, 1)[1]
  if not id or (named_claim and named_claim ~= id) then return nil end
  local claim = call('HGET', p .. KEY_CLAIMS, id)
  local rest = {}
  -- Most consumers delete all messages of a claim at once.
  if claim:sub(CLAIM_BYTES + 1) ~= pack(sequences_format(n), unpack(sequences)) then
    local to_delete, found = {}, 0
    for i = 1, n do to_delete[pack(SEQUENCE, sequences[i])] = true end
    for at = CLAIM_BYTES + 1, #claim, SEQUENCE_BYTES do
      local sequence = claim:sub(at, at + SEQUENCE_BYTES - 1)
      if to_delete[sequence] then found = found + 1 else rest[#rest + 1] = sequence end
    end
    -- Some are held by another claim, deleted, or named twice.
    if found ~= n then return nil end
  end
  call('HSET', p .. KEY_CLAIMS, id, claim:sub(1, CLAIM_BYTES) .. table.concat(rest))
  if #rest == 0 then
    call('ZREM', claims, id)
    deferred_claims = deferred_claims - 1
  end
  call('XDEL', p .. KEY_MESSAGES_1, unpack(sequences))
  claimed = claimed - n
  local counter =
    { minute = minute, completed = completed, completed_previous = completed_previous }
  count_completed(counter, n, now)
  minute, completed, completed_previous =
    counter.minute, counter.completed, counter.completed_previous
  call('SETRANGE', p, {{offset claimed}},
    pack({{format claimed..completed_previous}}, {{names claimed..completed_previous}}))
  return n
end

-- Writes the delivery states of messages that deferred claims hold; returns how many. A short
-- delivery state has the claim only.
local function write_deferred_claims(q, budget)
  local written = 0
  while q.deferred_claims > 0 and written < budget do
    local id = call('ZRANGE', q.p .. KEY_DEFERRED_CLAIMS, 0, 0)[1]
    if not id then
      q.deferred_claims = 0
      break
    end
    local claim = call('HGET', q.p .. KEY_CLAIMS, id) or ''
    local delivery, deliveries, members = SHORT_DELIVERY .. id, {}, {}
    for at = CLAIM_BYTES + 1, #claim, SEQUENCE_BYTES do
      local name = decimal((unpack_bytes(SEQUENCE, claim, at)))
      deliveries[#deliveries + 1], deliveries[#deliveries + 2] = name, delivery
      members[#members + 1], members[#members + 2] = name, name
    end
    call_in_chunks('HSET', q.p .. KEY_DELIVERY, deliveries)
    call_in_chunks('ZADD', q.p .. KEY_CLAIMED, members)
    call('ZREM', q.p .. KEY_DEFERRED_CLAIMS, id)
    q.deferred_claims = q.deferred_claims - 1
    written = written + max(#deliveries / 2, 1)
  end
  return written
end
