-- Consumer groups.

-- The indexes that together list every message of a queue or group, but for fresh ones.
local INDEXES = { KEY_READY, KEY_READY_KEYED, KEY_DELAYED, KEY_CLAIMED }

-- Adds up to `budget` fresh messages to the index of ready ones, because a group will share them.
local function index_fresh(q, budget)
  local entries = call('XRANGE', q.p .. KEY_MESSAGES_1, decimal(q.cursor + 1), '+', 'COUNT', budget)
  local members = {}
  for i, found in ipairs(entries) do
    local sequence = sequence_of(found[1])
    members[2 * i - 1], members[2 * i] = sequence, sequence
    q.cursor = sequence
  end
  q.fresh = q.fresh - #entries
  call_in_chunks('ZADD', q.p .. KEY_READY, members)
  if #entries < budget then q.cursor = max(q.cursor, q.last) end
  return #entries
end

-- Copies up to `budget` messages that a new group begins with from its queue and the retention log;
-- returns how many it processed.
backfill = function(q, s, now, budget)
  if q.fresh > 0 and q.cursor < s.backfill_up_to and s.backfill_after < s.backfill_up_to then
    return max(index_fresh(q, budget), 1)
  end
  local found, log = {}, retention_log(q)
  if log then
    local done = apply_log_timers(log, now, budget)
    if done > 0 then return done end
  end
  local function gather(key)
    local from = '(' .. decimal(s.backfill_after)
    local range = call('ZRANGEBYSCORE', key, from, s.backfill_up_to, 'LIMIT', 0, budget)
    for _, sequence in ipairs(range) do found[#found + 1] = tonumber(sequence) end
  end
  for _, index in ipairs(INDEXES) do gather(q.p .. index) end
  if log then gather(log.p .. KEY_READY) end
  table.sort(found)
  local processed, last = 0, nil
  for _, sequence in ipairs(found) do
    if sequence ~= last then
      if processed == budget then break end
      processed, last = processed + 1, sequence
      local message = read_message(q, sequence)
      local posted, visible, expires, ttl = header_of(message)
      -- The queue's delivery state counts, if the queue has the message; else that of the log.
      local raw = call('HGET', q.p .. KEY_DELIVERY, sequence)
      if not raw and log and not find_message(q, sequence, now) then
        raw = call('HGET', log.p .. KEY_DELIVERY, sequence)
      end
      local m = initial_delivery('', message)
      if raw then
        local original = load_times(unpack_delivery(raw), q, sequence)
        m.expires, m.ttl = original.expires, original.ttl
        -- A message that waits for a retry does so in the queue alone.
        m.visible = original.count > 0 and posted or original.visible
        m.dead_letter = original.dead_letter
        m.as_posted = m.expires == expires and m.visible == visible and m.ttl == ttl
          and m.dead_letter == original.dead_letter
      end
      if m.expires > now and posted >= s.backfill_since then
        insert(s, sequence, m, now)
        add_reference(q, sequence)
      end
    end
  end
  if processed < budget then
    s.backfill_up_to = 0
  else
    s.backfill_after = last
  end
  return max(processed, 1)
end

-- Creates the state of a group. The messages that it begins with are copied when what is due is
-- applied.
local function create_group_state(q, p, name, start, point)
  local s = attach(q, new_state(p, q.p, name))
  s.last = q.last
  s.backfill_up_to = q.last
  if start == START_AT_END then
    s.backfill_up_to = 0
  elseif start == START_AT_TIME then
    s.backfill_since = max(point, 0)
  elseif start == START_AT_SEQUENCE then
    s.backfill_after = max(point - 1, 0)
    if s.backfill_after >= s.backfill_up_to then s.backfill_up_to = 0 end
  end
  if s.backfill_up_to > 0 then schedule(s, 0) end
  q.group_states = false
  return s
end

local SUFFIXES = { KEY_MESSAGES_1, KEY_MESSAGES_2, KEY_EXPIRY_1, KEY_EXPIRY_2, KEY_REFERENCES,
  KEY_DEDUPLICATION, KEY_DEFERRED_CLAIMS, KEY_GROUPS, KEY_GROUP_NAMES, KEY_READY, KEY_READY_KEYED,
  KEY_KEY_ORDER, KEY_DELAYED, KEY_CLAIMED, KEY_DELIVERY, KEY_CLAIMS, KEY_TIMERS, KEY_KEY_STATES,
  KEY_AVAILABLE_KEYS, KEY_DEAD_LETTERS }

-- Deletes all keys of a queue or group but its state.
local function unlink_keys(p)
  local all = {}
  for i, suffix in ipairs(SUFFIXES) do all[i] = p .. suffix end
  call('UNLINK', unpack(all))
end

-- Deletes the state of a group, so that no call finds the group. A sweep deletes its other keys.
local function delete_group_state(q, p)
  q.loaded[p] = nil
  q.group_states = false
  call('DEL', p)
  call('SET', p .. KEY_QUEUE_OF, q.p)
  call('ZADD', q.registry, 0, p)
  call('SPUBLISH', p .. KEY_EVENTS, EVENT_DROPPED)
end

-- Loads the queue that a call names; nil if it does not exist or is a group.
local function open_queue_context(keys)
  local q = load_state(keys[1])
  if not q or q.kind ~= KIND_QUEUE then return nil end
  return begin_context(q, keys[2])
end

-- KEYS: queue, registry, guard. ARGV: now, name, key of the new group, one of START_…, time or
-- sequence, settings.
-- Returns { key of the group, created, settings, 1 if it is new }; nil if the queue does not exist.
local function create_group(keys, args)
  local q = open_queue_context(keys)
  if not q then return nil end
  local now, name = tonumber(args[1]), args[2]
  local raw = call('HGET', q.p .. KEY_GROUPS, name)
  if raw then
    local created, p, at = unpack_bytes(GROUP_ENTRY, raw)
    return { p, created, raw:sub(at), 0 }
  end
  create_group_state(q, args[3], name, args[4], tonumber(args[5]))
  call('HSET', q.p .. KEY_GROUPS, name, pack(GROUP_ENTRY, now, args[3]) .. args[6])
  call('ZADD', q.p .. KEY_GROUP_NAMES, 0, name)
  q.groups = q.groups + 1
  commit(q)
  return { args[3], now, args[6], 1 }
end

-- KEYS: queue or group. Returns { the group's queue or '', the group's name }; nil if it does not
-- exist.
local function group_source(keys)
  local s = load_state(keys[1])
  return s and { s.source, s.name }
end

-- KEYS: queue. ARGV: name. Returns { key of the group, created, settings } or nil.
local function get_group(keys, args)
  local raw = call('HGET', keys[1] .. KEY_GROUPS, args[1])
  if not raw then return nil end
  local created, p, at = unpack_bytes(GROUP_ENTRY, raw)
  return { p, created, raw:sub(at) }
end

-- KEYS: queue. ARGV: name after which to start or '', number of groups.
-- Returns { name, key of the group, created, settings … }.
local function list_groups(keys, args)
  local from = args[1] == '' and '-' or '(' .. args[1]
  local names = call('ZRANGEBYLEX', keys[1] .. KEY_GROUP_NAMES, from, '+', 'LIMIT', 0, args[2])
  local reply = {}
  for _, name in ipairs(names) do
    local raw = call('HGET', keys[1] .. KEY_GROUPS, name)
    local created, p, at = unpack_bytes(GROUP_ENTRY, raw)
    local n = #reply
    reply[n + 1], reply[n + 2], reply[n + 3], reply[n + 4] = name, p, created, raw:sub(at)
  end
  return reply
end

-- KEYS: queue, registry, guard. ARGV: now, name, key of the new state, one of START_…, time or
-- sequence.
-- Returns { key of the group, created, settings } or nil.
local function seek_group(keys, args)
  local q = open_queue_context(keys)
  local raw = q and call('HGET', q.p .. KEY_GROUPS, args[2])
  if not raw then return nil end
  local created, p, at = unpack_bytes(GROUP_ENTRY, raw)
  delete_group_state(q, p)
  create_group_state(q, args[3], args[2], args[4], tonumber(args[5]))
  call('HSET', q.p .. KEY_GROUPS, args[2], pack(GROUP_ENTRY, created, args[3]) .. raw:sub(at))
  commit(q)
  return { args[3], created, raw:sub(at) }
end

-- KEYS: queue, registry, guard. ARGV: name. Returns 1 if the group existed.
local function delete_group(keys, args)
  local q = open_queue_context(keys)
  local raw = q and call('HGET', q.p .. KEY_GROUPS, args[1])
  if not raw then return 0 end
  local _, p = unpack_bytes(GROUP_ENTRY, raw)
  delete_group_state(q, p)
  call('HDEL', q.p .. KEY_GROUPS, args[1])
  call('ZREM', q.p .. KEY_GROUP_NAMES, args[1])
  q.groups = q.groups - 1
  commit(q)
  return 1
end
