-- Life and care of the queues.

-- KEYS: queue, registry.
local function open_queue(keys)
  local p = keys[1]
  if call('EXISTS', p, p .. ':dropped') == 0 then finish(view(blank(p, '', ''), keys[2])) end
  return 1
end

-- KEYS: queue, registry. ARGV: seconds for which it cannot be opened again.
local function drop_queue(keys, args)
  local p = keys[1]
  for _, raw in ipairs(call('HVALS', p .. ':g')) do
    local _, reading_of = unpack_bytes('<I6s', raw)
    unlink_parts(reading_of)
    call('DEL', reading_of)
    call('ZREM', keys[2], reading_of)
    call('SPUBLISH', reading_of .. ':w', 'x')
  end
  unlink_parts(p .. ':log')
  unlink_parts(p)
  call('DEL', p, p .. ':log')
  call('ZREM', keys[2], p, p .. ':log')
  call('SET', p .. ':dropped', 1, 'EX', args[1])
  call('SPUBLISH', p .. ':w', 'x')
  return 1
end

local function mark(answer, q, sequence)
  local n = #answer
  local meta = sequence and entry(q, sequence)
  answer[n + 1] = meta and sequence or 0
  answer[n + 2] = meta and meta_of(meta) or 0
end

-- ARGV: now. Answers { status, expired, free, claimed, first, posted at, last, posted at, minute,
-- handled in it and before }.
local function stats(keys, args)
  local r, answer = settled(keys, tonumber(args[1]))
  if not r then return answer end
  local q, first, last = r.q, nil, nil
  for _, part in ipairs({ ':f', ':l', ':d', ':c' }) do
    local head = call('ZRANGE', r.p .. part, 0, 0)[1]
    if head then
      local tail = tonumber(call('ZRANGE', r.p .. part, -1, -1)[1])
      first, last = min(first or NEVER, tonumber(head)), max(last or 0, tail)
    end
  end
  if r.fresh > 0 then
    local from = text(q.cursor + 1)
    local head = call('XRANGE', q.p .. ':1', from, '+', 'COUNT', 1)[1]
    local tail = call('XREVRANGE', q.p .. ':1', '+', from, 'COUNT', 1)[1]
    first, last = min(first or NEVER, sequence_of(head[1])), max(last or 0, sequence_of(tail[1]))
  end
  answer = { OK, 0, r.ready + r.in_line + r.delayed, r.claimed }
  mark(answer, q, first)
  mark(answer, q, last)
  answer[9], answer[10], answer[11] = r.minute, r.handled, r.before
  finish(q)
  answer[2] = q.expired
  return answer
end

-- ARGV: now, up to which sequence, or '' to be told.
-- Answers { status, expired, deleted, up to which sequence, whether there is more }.
local function purge(keys, args)
  local now = tonumber(args[1])
  local r, answer = settled(keys, now)
  if not r then return answer end
  local q = r.q
  local last = tonumber(args[2]) or q.last
  local deleted, budget = 0, STEP
  for _, state in ipairs({ 'f', 'l', 'd' }) do
    local found = budget > 0
      and call('ZRANGEBYSCORE', r.p .. ':' .. state, '-inf', last, 'LIMIT', 0, budget) or {}
    for _, sequence in ipairs(found) do
      sequence = tonumber(sequence)
      local raw = call('HGET', r.p .. ':m', sequence)
      remove(r, sequence, raw and read_record(raw) or fresh_record(state, (entry(q, sequence))))
    end
    deleted, budget = deleted + #found, budget - #found
  end
  if r.fresh > 0 and budget > 0 and last > q.cursor then
    local from, to = text(q.cursor + 1), text(last)
    local found = call('XRANGE', q.p .. ':1', from, to, 'COUNT', budget)
    for _, one in ipairs(found) do
      q.cursor = sequence_of(one[1])
      remove(q, q.cursor, fresh_record('n', one[2][2]))
    end
    deleted, budget = deleted + #found, budget - #found
  end
  local log = r == q and budget > 0 and log_of(q)
  local retained = 0
  if log then
    local found = call('ZRANGEBYSCORE', log.p .. ':f', '-inf', last, 'LIMIT', 0, budget)
    for _, sequence in ipairs(found) do forget_retained(q, tonumber(sequence)) end
    retained = #found
  end
  finish(q)
  return { OK, q.expired, deleted, last, retained == budget and 1 or 0 }
end

-- ARGV: now. Answers { status, expired, claimable, when something is due }.
local function look(keys, args)
  local now = tonumber(args[1])
  local r = open(keys)
  if not r then return { UNKNOWN, 0 } end
  settle(r, now)
  finish(r.q)
  return { OK, r.q.expired, r.ready + r.open_lines, r == r.q and r.due or min(r.due, r.q.due) }
end

-- Removes some of what a reading has that nobody can find any more; answers how much.
local function sweep_forgotten(p, registry)
  local q = load(call('GET', p .. ':q'))
  local removed = 0
  if q then
    view(q, registry)
    for _, state in ipairs({ ':f', ':l', ':d', ':c' }) do
      local found = call('ZRANGE', p .. state, 0, STEP - removed - 1)
      for _, sequence in ipairs(found) do release(q, tonumber(sequence)) end
      if #found > 0 then call('ZREMRANGEBYRANK', p .. state, 0, #found - 1) end
      removed = removed + #found
      if removed >= STEP then break end
    end
    finish(q)
  end
  if removed < STEP then
    unlink_parts(p)
    call('DEL', p .. ':q')
    call('ZREM', registry, p)
    removed = removed + 1
  end
  return removed
end

-- KEYS: registry. ARGV: now. Answers { handled, 1 if there is more, expired }.
local function sweep(keys, args)
  local registry, now = keys[1], tonumber(args[1])
  local handled, expired, more = 0, 0, 0
  local due = call('ZRANGEBYSCORE', registry, '-inf', now, 'LIMIT', 0, 64)
  if #due == 64 then more = 1 end
  for _, p in ipairs(due) do
    if handled >= STEP then
      more = 1
      break
    end
    local r = open({ p, registry })
    if r then
      -- Its queue may be due as well; that has its own place in the registry.
      local done, did = settle(r, now)
      finish(r.q)
      if done and did == 0 and r.due == r.was_due and r.due <= now then
        call('ZREM', registry, p)
      end
      handled, expired = handled + did, expired + r.q.expired
      if not done then more = 1 end
    elseif call('EXISTS', p .. ':q') == 1 then
      local removed = sweep_forgotten(p, registry)
      if removed >= STEP then more = 1 end
      handled = handled + removed
    else
      call('ZREM', registry, p)
    end
  end
  return { handled, more, expired }
end
