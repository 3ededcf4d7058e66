-- Consumer groups.

-- Converts fresh messages into indexed ones, because they are to be shared; the first `budget`.
local function index_fresh(q, budget)
  local entries = call('XRANGE', q.p .. ':1', text(q.cursor + 1), '+', 'COUNT', budget)
  local places = {}
  for i, found in ipairs(entries) do
    local sequence = sequence_of(found[1])
    places[2 * i - 1], places[2 * i] = sequence, sequence
    q.cursor = sequence
  end
  q.fresh = q.fresh - #entries
  bulk('ZADD', q.p .. ':f', places)
  if #entries < budget then q.cursor = max(q.cursor, q.last) end
  return #entries
end

-- Copies some of what a reading begins with from its queue and the queue's log; answers how much it
-- looked at.
fill = function(q, r, now, budget)
  if q.fresh > 0 and q.cursor < r.fill_up_to and r.fill_after < r.fill_up_to then
    return max(index_fresh(q, budget), 1)
  end
  local found, log = {}, log_of(q)
  if log then
    local done = settle_log(log, now, budget)
    if done > 0 then return done end
  end
  local function gather(key)
    local range = call('ZRANGEBYSCORE', key, '(' .. text(r.fill_after), r.fill_up_to, 'LIMIT', 0, budget)
    for _, sequence in ipairs(range) do found[#found + 1] = tonumber(sequence) end
  end
  for _, state in ipairs({ ':f', ':l', ':d', ':c' }) do gather(q.p .. state) end
  if log then gather(log.p .. ':f') end
  table.sort(found)
  local looked, last = 0, nil
  for _, sequence in ipairs(found) do
    if sequence ~= last then
      if looked == budget then break end
      looked, last = looked + 1, sequence
      local meta = entry(q, sequence)
      local posted, visible, expires, ttl = meta_of(meta)
      -- Of a message that the queue has and retains, what it has.
      local raw = call('HGET', q.p .. ':m', sequence)
      if not raw and log and not find(q, sequence, now) then
        raw = call('HGET', log.p .. ':m', sequence)
      end
      local m = fresh_record('', meta)
      if raw then
        local its = complete(read_record(raw), q, sequence)
        m.expires, m.ttl = its.expires, its.ttl
        -- What waits for a retry waits in the queue alone.
        m.visible = its.count > 0 and posted or its.visible
        m.letter = its.letter
        m.plain = m.expires == expires and m.visible == visible and m.ttl == ttl and m.letter == its.letter
      end
      if m.expires > now and posted >= r.fill_since then
        put(r, sequence, m, now)
        share(q, sequence)
      end
    end
  end
  if looked < budget then
    r.fill_up_to = 0
  else
    r.fill_after = last
  end
  return max(looked, 1)
end

-- A new reading of a queue; what it begins with is copied when it is settled. Kinds of points: s
-- start, e end, t time, q sequence.
local function begin_reading(q, p, name, kind, point)
  local r = attach(q, blank(p, q.p, name))
  r.last = q.last
  r.fill_up_to = q.last
  if kind == 'e' then
    r.fill_up_to = 0
  elseif kind == 't' then
    r.fill_since = max(point, 0)
  elseif kind == 'q' then
    r.fill_after = max(point - 1, 0)
    if r.fill_after >= r.fill_up_to then r.fill_up_to = 0 end
  end
  if r.fill_up_to > 0 then lower(r, 0) end
  q.readings = false
  return r
end

local PARTS = { ':1', ':2', ':e1', ':e2', ':r', ':u', ':v', ':g', ':n', ':f', ':l', ':x', ':d', ':c', ':m',
  ':h', ':t', ':k', ':o', ':z' }

local function unlink_parts(p)
  local all = {}
  for i, part in ipairs(PARTS) do all[i] = p .. part end
  call('UNLINK', unpack(all))
end

-- Lets nobody find a reading of a group any more; sweeps remove what it has.
local function forget_reading(q, p)
  q.loaded[p] = nil
  q.readings = false
  call('DEL', p)
  call('SET', p .. ':q', q.p)
  call('ZADD', q.registry, 0, p)
  call('SPUBLISH', p .. ':w', 'x')
end

local function open_queue_only(keys)
  local q = load(keys[1])
  if not q or q.kind == 1 then return nil end
  return view(q, keys[2])
end

-- KEYS: queue, registry. ARGV: now, name, key of the new reading, kind of point, point, settings.
-- Answers { reading, created, settings, 1 if it is new }; nil if the queue is unknown.
local function create_group(keys, args)
  local q = open_queue_only(keys)
  if not q then return nil end
  local now, name = tonumber(args[1]), args[2]
  local raw = call('HGET', q.p .. ':g', name)
  if raw then
    local created, p, at = unpack_bytes('<I6s', raw)
    return { p, created, raw:sub(at), 0 }
  end
  begin_reading(q, args[3], name, args[4], tonumber(args[5]))
  call('HSET', q.p .. ':g', name, pack('<I6s', now, args[3]) .. args[6])
  call('ZADD', q.p .. ':n', 0, name)
  q.groups = q.groups + 1
  finish(q)
  return { args[3], now, args[6], 1 }
end

-- KEYS: reading, registry. Answers { the queue that it reads or '', the name of its group }; nil if
-- it is unknown.
local function source(keys)
  local r = load(keys[1])
  return r and { r.source, r.name }
end

-- KEYS: queue, registry. ARGV: name. Answers { reading, created, settings } or nil.
local function get_group(keys, args)
  local raw = call('HGET', keys[1] .. ':g', args[1])
  if not raw then return nil end
  local created, p, at = unpack_bytes('<I6s', raw)
  return { p, created, raw:sub(at) }
end

-- KEYS: queue, registry. ARGV: name to start behind or '', how many.
-- Answers { name, reading, created, settings … }.
local function list_groups(keys, args)
  local names = call('ZRANGEBYLEX', keys[1] .. ':n', args[1] == '' and '-' or '(' .. args[1], '+', 'LIMIT', 0, args[2])
  local answer = {}
  for _, name in ipairs(names) do
    local raw = call('HGET', keys[1] .. ':g', name)
    local created, p, at = unpack_bytes('<I6s', raw)
    local n = #answer
    answer[n + 1], answer[n + 2], answer[n + 3], answer[n + 4] = name, p, created, raw:sub(at)
  end
  return answer
end

-- KEYS: queue, registry. ARGV: now, name, key of the new reading, kind of point, point.
-- Answers { reading, created, settings } or nil.
local function seek_group(keys, args)
  local q = open_queue_only(keys)
  local raw = q and call('HGET', q.p .. ':g', args[2])
  if not raw then return nil end
  local created, p, at = unpack_bytes('<I6s', raw)
  forget_reading(q, p)
  begin_reading(q, args[3], args[2], args[4], tonumber(args[5]))
  call('HSET', q.p .. ':g', args[2], pack('<I6s', created, args[3]) .. raw:sub(at))
  finish(q)
  return { args[3], created, raw:sub(at) }
end

-- KEYS: queue, registry. ARGV: name. Answers 1 if it was there.
local function delete_group(keys, args)
  local q = open_queue_only(keys)
  local raw = q and call('HGET', q.p .. ':g', args[1])
  if not raw then return 0 end
  local _, p = unpack_bytes('<I6s', raw)
  forget_reading(q, p)
  call('HDEL', q.p .. ':g', args[1])
  call('ZREM', q.p .. ':n', args[1])
  q.groups = q.groups - 1
  finish(q)
  return 1
end
