-- Claims: create, read, renew, release.

-- Sets the claim of a message, and extends a ttl that would end before the claim does.
local function set_claim(m, id, ttl, grace, now)
  m.claim = id
  if m.expires < now + ttl * 1000 then
    m.ttl = ttl + grace
    m.expires = min(now + m.ttl * 1000, NEVER)
  end
end

-- Appends a message to a reply: sequence, message, delivery state or ''.
local function append_message(reply, sequence, m, message)
  local n = #reply
  reply[n + 1], reply[n + 2], reply[n + 3] =
    sequence, message, m.as_posted and '' or pack_delivery(m)
end

-- Stores a claim on messages, whose sequences are packed.
local function store_claim(s, now, id, ttl, sequences)
  local expires = now + ttl * 1000
  call('HSET', s.p .. KEY_CLAIMS, id, pack(CLAIM, now, ttl, expires) .. sequences)
  call('ZADD', s.p .. KEY_TIMERS, decimal(expires), TIMER_CLAIM .. id)
  schedule(s, expires)
end

-- Moves the start of the first expiry run of stream 1 to the first message that still exists.
local function advance_first_expiry_run(q)
  local expiry = q.p .. KEY_EXPIRY_1
  local first = call('ZRANGE', expiry, 0, 0)[1]
  local found = first and call('XRANGE', q.p .. KEY_MESSAGES_1, first, '+', 'COUNT', 1)[1]
  if not found then return end
  local name = found[1]:sub(1, -3)
  local _, _, expires = unpack_bytes(HEADER_TIMES, found[2][2])
  if name ~= first and expires < NEVER then
    q.expiry_runs = q.expiry_runs - call('ZREM', expiry, first)
      + call('ZADD', expiry, decimal(expires), name)
  end
end

-- Claims messages of a queue where all that can be claimed are fresh.
local function claim_fresh(q, now, id, ttl, grace, limit)
  -- The next claim may then take the path of deferred claims.
  advance_first_expiry_run(q)
  local reply, sequences, deliveries, members = { STATUS_OK, 0, 0, 0, 0 }, {}, {}, {}
  if q.fresh > 0 then
    local claim_expires = now + ttl * 1000
    local extended_ttl = ttl + grace
    local extended_expires = min(now + extended_ttl * 1000, NEVER)
    local from = decimal(q.cursor + 1)
    for i, found in ipairs(call('XRANGE', q.p .. KEY_MESSAGES_1, from, '+', 'COUNT', limit)) do
      local message, name = found[2][2], found[1]:sub(1, -3)
      local _, visible, expires, message_ttl = unpack_bytes(HEADER_TIMES_AND_TTL, message)
      if expires < claim_expires then expires, message_ttl = extended_expires, extended_ttl end
      local delivery =
        pack(DELIVERY_WITHOUT_KEY, STATE_CLAIMED, 0, 0, 1, expires, visible, message_ttl, 1, id, 0)
      local sequence = tonumber(name)
      deliveries[2 * i - 1], deliveries[2 * i] = name, delivery
      members[2 * i - 1], members[2 * i] = name, name
      sequences[i] = pack(SEQUENCE, sequence)
      local n = 3 * i + 3
      reply[n], reply[n + 1], reply[n + 2] = sequence, message, delivery
      q.cursor = sequence
    end
  end
  local count = #sequences
  if count > 0 then
    q.ready, q.fresh, q.claimed = q.ready - count, q.fresh - count, q.claimed + count
    call_in_chunks('HSET', q.p .. KEY_DELIVERY, deliveries)
    call_in_chunks('ZADD', q.p .. KEY_CLAIMED, members)
    store_claim(q, now, id, ttl, table.concat(sequences))
  end
  commit(q)
  reply[2], reply[3] = q.expired, count
  return reply
end

-- Claims candidates of one source: takes those that were claimed too often into `dead`, the others
-- into `taken`. Returns the last sequence and the bytes of the dead letters.
local function claim_candidates(s, found, taken, dead, claim)
  local last, bytes = 0, 0
  for _, one in ipairs(found) do
    local sequence, m = one[1], one[2]
    last = sequence
    if claim.maximum and m.count >= claim.maximum then
      reserve_for_transfer(s, sequence, m, claim.now)
      dead[#dead + 1] = one
      bytes = bytes + #one[3]
    else
      take(s, sequence, m)
      set_claim(m, claim.id, claim.ttl, claim.grace, claim.now)
      if not m.as_posted then defer_removal(s, 'removed_timers', TIMER_MESSAGE .. sequence) end
      m.as_posted = nil
      m.state = STATE_CLAIMED
      m.count = m.count + 1
      taken[#taken + 1] = one
    end
  end
  return last, bytes
end

-- KEYS: queue or group, registry, guard, and the dead-letter queue if it is in the same slot.
-- ARGV: now, claim, ttl, grace, limit, maximum claim count and key of the dead-letter queue, or ''.
-- Returns { status, expired, number of claimed messages that follow, first and last sequence of the
-- claimed messages that the caller reads itself or 0 and 0, claimed messages …, dead letters … }.
local function claim(keys, args)
  local now, id, ttl, grace = tonumber(args[1]), args[2], tonumber(args[3]), tonumber(args[4])
  local limit, maximum = tonumber(args[5]), tonumber(args[6])
  if not maximum or maximum > 0 then
    local reply = claim_deferred(keys, now, id, ttl, limit)
    if reply then return reply end
  end
  local s = open_context(keys)
  if not s then return { STATUS_OK, 0, 0, 0, 0 } end
  local q = s.q
  if args[7] == s.p or args[7] == q.p then maximum = nil end
  if not apply_due(s, now) then
    commit(q)
    return { STATUS_AGAIN, q.expired, 0, 0, 0 }
  end
  if keys[4] and call('EXISTS', keys[4]) == 0 then
    commit(q)
    return { STATUS_UNKNOWN, q.expired, 0, 0, 0 }
  end
  if s == q and s.ready == s.fresh and s.available_keys == 0 and (not maximum or maximum > 0) then
    return claim_fresh(s, now, id, ttl, grace, limit)
  end
  local terms = { now = now, id = id, ttl = ttl, grace = grace, maximum = maximum }
  local taken, dead, after, dead_bytes = {}, {}, 0, 0
  local is_step_full = false
  while #taken < limit and not is_step_full do
    local key, is_unkeyed = next_source(s, after)
    if not key then break end
    local found = candidates(s, key, is_unkeyed, after, limit - #taken)
    local taken_before = #taken
    local last, bytes = claim_candidates(s, found, taken, dead, terms)
    dead_bytes = dead_bytes + bytes
    local count = #taken - taken_before
    if is_unkeyed then
      after = last
      rotate_unkeyed_to_back(s)
    elseif count > 0 then
      update_key(s, key, -count, count)
    end
    is_step_full = #dead >= MAX_STEP or dead_bytes >= MAX_REPLY_BYTES
  end
  table.sort(taken, by_sequence)
  local reply = { STATUS_OK, 0, #taken, 0, 0 }
  if #taken > 0 then
    local deliveries, members, sequences = {}, {}, {}
    for i, one in ipairs(taken) do
      local sequence, m = one[1], one[2]
      local delivery = pack_delivery(m)
      deliveries[2 * i - 1], deliveries[2 * i] = sequence, delivery
      members[2 * i - 1], members[2 * i] = sequence, sequence
      sequences[i] = pack(SEQUENCE, sequence)
      local n = 3 * i + 3
      reply[n], reply[n + 1], reply[n + 2] = sequence, one[3], delivery
    end
    call_in_chunks('HSET', s.p .. KEY_DELIVERY, deliveries)
    call_in_chunks('ZADD', s.p .. KEY_CLAIMED, members)
    s.claimed = s.claimed + #taken
    store_claim(s, now, id, ttl, table.concat(sequences))
  elseif is_step_full then
    reply[1] = STATUS_AGAIN
  end
  for _, one in ipairs(dead) do append_message(reply, one[1], one[2], one[3]) end
  commit(q)
  reply[2] = q.expired
  return reply
end

-- Returns a claim that has not expired, packed.
local function live_claim(s, id, now)
  local raw = call('HGET', s.p .. KEY_CLAIMS, id)
  if not raw then return nil end
  local _, _, expires = read_claim(raw)
  if expires > now then return raw end
end

-- Opens the queue or group that a call names, and applies what is due. If it does not exist, or
-- more is due than one step applies, returns nil and the reply of the call.
local function open_and_apply_due(keys, now)
  local s = open_context(keys)
  if not s then return nil, { STATUS_UNKNOWN, 0 } end
  if not apply_due(s, now) then
    commit(s.q)
    return nil, { STATUS_AGAIN, s.q.expired }
  end
  return s
end

-- ARGV: now, claim. Returns { status, expired, renewed, ttl, messages … }.
local function get_claim(keys, args)
  local now, id = tonumber(args[1]), args[2]
  local s, reply = open_and_apply_due(keys, now)
  if not s then return reply end
  local raw = live_claim(s, id, now)
  if not raw then
    commit(s.q)
    return { STATUS_UNKNOWN, s.q.expired }
  end
  local renewed, ttl = read_claim(raw)
  reply = { STATUS_OK, 0, renewed, ttl }
  for _, pair in ipairs(messages_held_by(s, id, claimed_sequences(raw))) do
    append_message(reply, pair[1], pair[2], (read_message(s.q, pair[1])))
  end
  commit(s.q)
  reply[2] = s.q.expired
  return reply
end

-- ARGV: now, claim, ttl, grace.
local function renew(keys, args)
  local now, id, ttl, grace = tonumber(args[1]), args[2], tonumber(args[3]), tonumber(args[4])
  local s, reply = open_and_apply_due(keys, now)
  if not s then return reply end
  local raw = live_claim(s, id, now)
  if not raw then
    commit(s.q)
    return { STATUS_UNKNOWN, s.q.expired }
  end
  local deliveries, sequences = {}, {}
  for _, pair in ipairs(messages_held_by(s, id, claimed_sequences(raw))) do
    set_claim(pair[2], id, ttl, grace, now)
    deliveries[#deliveries + 1] = pair[1]
    deliveries[#deliveries + 1] = pack_delivery(pair[2])
    sequences[#sequences + 1] = pack(SEQUENCE, pair[1])
  end
  call_in_chunks('HSET', s.p .. KEY_DELIVERY, deliveries)
  store_claim(s, now, id, ttl, table.concat(sequences))
  commit(s.q)
  return { STATUS_OK, s.q.expired }
end

-- ARGV: now, claim.
local function release_claim(keys, args)
  local now, id = tonumber(args[1]), args[2]
  local s, reply = open_and_apply_due(keys, now)
  if not s then return reply end
  local raw = live_claim(s, id, now)
  if raw then
    for _, pair in ipairs(messages_held_by(s, id, claimed_sequences(raw))) do
      pair[2].claim = nil
      make_ready(s, pair[1], pair[2])
    end
    call('HDEL', s.p .. KEY_CLAIMS, id)
    call('ZREM', s.p .. KEY_TIMERS, TIMER_CLAIM .. id)
  end
  commit(s.q)
  return { STATUS_OK, s.q.expired }
end
