-- Queue lifecycle and maintenance.

-- KEYS: queue, registry, guard.
local function open_queue(keys)
  local p = keys[1]
  if call('EXISTS', p, p .. KEY_DROPPED) == 0 then
    commit(begin_context(new_state(p, '', ''), keys[2]))
  end
  return 1
end

-- KEYS: queue, registry, guard. ARGV: seconds for which the queue cannot be opened again.
local function drop_queue(keys, args)
  local p = keys[1]
  for _, raw in ipairs(call('HVALS', p .. KEY_GROUPS)) do
    local _, group = unpack_bytes(GROUP_ENTRY, raw)
    unlink_keys(group)
    call('DEL', group)
    call('ZREM', keys[2], group)
    call('SPUBLISH', group .. KEY_EVENTS, EVENT_DROPPED)
  end
  unlink_keys(p .. KEY_RETENTION_LOG)
  unlink_keys(p)
  call('DEL', p, p .. KEY_RETENTION_LOG)
  call('ZREM', keys[2], p, p .. KEY_RETENTION_LOG)
  call('SET', p .. KEY_DROPPED, 1, 'EX', args[1])
  call('SPUBLISH', p .. KEY_EVENTS, EVENT_DROPPED)
  return 1
end

-- Appends the sequence of a message and its post time, or 0 and 0, to a reply.
local function append_position(reply, q, sequence)
  local n = #reply
  local message = sequence and read_message(q, sequence)
  reply[n + 1] = message and sequence or 0
  reply[n + 2] = message and header_of(message) or 0
end

-- ARGV: now. Returns { status, expired, free, claimed, first sequence, its post time, last
-- sequence, its post time, minute, messages completed in that minute and in the one before }.
local function stats(keys, args)
  local s, reply = open_and_apply_due(keys, tonumber(args[1]))
  if not s then return reply end
  local q, first, last = s.q, nil, nil
  for _, index in ipairs(INDEXES) do
    local head = call('ZRANGE', s.p .. index, 0, 0)[1]
    if head then
      local tail = tonumber(call('ZRANGE', s.p .. index, -1, -1)[1])
      first, last = min(first or NEVER, tonumber(head)), max(last or 0, tail)
    end
  end
  if s.fresh > 0 then
    local from = decimal(q.cursor + 1)
    local head = call('XRANGE', q.p .. KEY_MESSAGES_1, from, '+', 'COUNT', 1)[1]
    local tail = call('XREVRANGE', q.p .. KEY_MESSAGES_1, '+', from, 'COUNT', 1)[1]
    first, last = min(first or NEVER, sequence_of(head[1])), max(last or 0, sequence_of(tail[1]))
  end
  reply = { STATUS_OK, 0, s.ready + s.ready_keyed + s.delayed, s.claimed }
  append_position(reply, q, first)
  append_position(reply, q, last)
  reply[9], reply[10], reply[11] = s.minute, s.completed, s.completed_previous
  commit(q)
  reply[2] = q.expired
  return reply
end

-- ARGV: now, last sequence to delete, or '' in the first call.
-- Returns { status, expired, number of deleted messages, last sequence to delete, 1 if there are
-- more }.
local function purge(keys, args)
  local now = tonumber(args[1])
  local s, reply = open_and_apply_due(keys, now)
  if not s then return reply end
  local q = s.q
  local last = tonumber(args[2]) or q.last
  local deleted, budget = 0, MAX_STEP
  for _, state in ipairs({ STATE_READY, STATE_READY_KEYED, STATE_DELAYED }) do
    local found = budget > 0
      and call('ZRANGEBYSCORE', s.p .. index_of(state), '-inf', last, 'LIMIT', 0, budget) or {}
    for _, sequence in ipairs(found) do
      sequence = tonumber(sequence)
      local raw = call('HGET', s.p .. KEY_DELIVERY, sequence)
      local m = raw and unpack_delivery(raw)
        or initial_delivery(state, (read_message(q, sequence)))
      remove(s, sequence, m)
    end
    deleted, budget = deleted + #found, budget - #found
  end
  if s.fresh > 0 and budget > 0 and last > q.cursor then
    local from, to = decimal(q.cursor + 1), decimal(last)
    local found = call('XRANGE', q.p .. KEY_MESSAGES_1, from, to, 'COUNT', budget)
    for _, one in ipairs(found) do
      q.cursor = sequence_of(one[1])
      remove(q, q.cursor, initial_delivery(STATE_FRESH, one[2][2]))
    end
    deleted, budget = deleted + #found, budget - #found
  end
  local log = s == q and budget > 0 and retention_log(q)
  local retained = 0
  if log then
    local found = call('ZRANGEBYSCORE', log.p .. KEY_READY, '-inf', last, 'LIMIT', 0, budget)
    for _, sequence in ipairs(found) do remove_retained(q, tonumber(sequence)) end
    retained = #found
  end
  commit(q)
  return { STATUS_OK, q.expired, deleted, last, retained == budget and 1 or 0 }
end

-- Applies what is due, for a node that watches the queue or group.
-- ARGV: now. Returns { status, expired, number of claimable messages, next due time }.
local function poll(keys, args)
  local now = tonumber(args[1])
  local s = open_context(keys)
  if not s then return { STATUS_UNKNOWN, 0 } end
  apply_due(s, now)
  commit(s.q)
  local due = s == s.q and s.due or min(s.due, s.q.due)
  return { STATUS_OK, s.q.expired, s.ready + s.available_keys, due }
end

-- Removes messages of a deleted group, at most MAX_STEP, and then its keys; returns how many it
-- removed.
local function sweep_deleted_group(p, registry)
  local q = load_state(call('GET', p .. KEY_QUEUE_OF))
  local removed = 0
  if q then
    begin_context(q, registry)
    for _, index in ipairs(INDEXES) do
      local found = call('ZRANGE', p .. index, 0, MAX_STEP - removed - 1)
      for _, sequence in ipairs(found) do drop_reference(q, tonumber(sequence)) end
      if #found > 0 then call('ZREMRANGEBYRANK', p .. index, 0, #found - 1) end
      removed = removed + #found
      if removed >= MAX_STEP then break end
    end
    commit(q)
  end
  if removed < MAX_STEP then
    unlink_keys(p)
    call('DEL', p .. KEY_QUEUE_OF)
    call('ZREM', registry, p)
    removed = removed + 1
  end
  return removed
end

-- KEYS: registry, guard. ARGV: now. Returns { processed, 1 if there is more, expired }.
local function sweep(keys, args)
  local registry, now = keys[1], tonumber(args[1])
  local processed, expired, more = 0, 0, 0
  local due = call('ZRANGEBYSCORE', registry, '-inf', now, 'LIMIT', 0, 64)
  if #due == 64 then more = 1 end
  for _, p in ipairs(due) do
    if processed >= MAX_STEP then
      more = 1
      break
    end
    local s = open_context({ p, registry })
    if s then
      -- A group's queue has an entry of its own in the registry.
      local done, count = apply_due(s, now)
      commit(s.q)
      if done and count == 0 and s.due == s.original_due and s.due <= now then
        call('ZREM', registry, p)
      end
      processed, expired = processed + count, expired + s.q.expired
      if not done then more = 1 end
    elseif call('EXISTS', p .. KEY_QUEUE_OF) == 1 then
      local removed = sweep_deleted_group(p, registry)
      if removed >= MAX_STEP then more = 1 end
      processed = processed + removed
    else
      call('ZREM', registry, p)
    end
  end
  return { processed, more, expired }
end
