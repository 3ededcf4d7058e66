-- The state of a queue or a group, and how a function loads and saves it.
--
-- Before this source is loaded, the node replaces the constants in capitals and the expressions in
-- double braces; see library.rs. The keys are described in keys.rs.
--
-- Messages are taken from a queue itself, which is its default group, or from a named group; what a
-- queue retains (its retention log) is stored like a group. Names used in all files:
--
--   q   state of the queue
--   s   state of the queue or group that the caller named
--   p   key of a state, which is also the prefix of its other keys
--   m   delivery state of one message in s
--   n   number of a message stream of the queue, 1 or 2
--
-- Times are milliseconds, ttls seconds. The functions read no clock: the caller passes `now`.
--
-- Each call also names a key that never exists (the guard). While a slot moves, a Cluster refuses
-- functions that name a missing key, so no function runs while its slot is split over two nodes.

-- Maximum number of messages that one step processes.
local MAX_STEP = 256
-- Number of messages that are read together: each comes with its body.
local CHUNK = 32
-- Maximum time by which a message may outlive its ttl, so that a queue's messages expire in order.
local MAX_EXPIRY_DELAY = 2000
-- How long a message stays reserved for a transfer to another queue.
local TRANSFER_TIMEOUT = 30000

-- Redis has no libraries while it loads a function library, so the first call sets these.
local call, pack, unpack_bytes, floor, min, max, NO_CLAIM, format

local function prepare()
  call, pack, unpack_bytes = redis.call, struct.pack, struct.unpack
  floor, min, max = math.floor, math.min, math.max
  format = string.format
  NO_CLAIM = string.rep('\0', 16)
end

local function load_state(p)
  local raw = call('GET', p)
  if not raw then return nil end
  local {{names}} = unpack_bytes({{format}}, raw)
  -- One table constructor is faster than setting the fields one by one.
  return {
    p = p, raw = raw, newly_claimable = 0, posted = false, original_due = due, q = false,
    registry = false, loaded = false, deleted_messages = false, expired = 0, group_states = false,
    removed_delivery = false, removed_claimed = false, removed_timers = false,
    {{assignments}}
  }
end

local function pack_state(s)
  return pack({{format}}, {{values s}})
end

-- Returns the state of a queue (source '') or a group that has no messages yet.
local function new_state(p, source, name)
  return {
    p = p, raw = '', newly_claimable = 0, posted = false, original_due = NEVER, q = false,
    registry = false, loaded = false, deleted_messages = false, expired = 0, group_states = false,
    removed_delivery = false, removed_claimed = false, removed_timers = false,
    {{initial_assignments}}
  }
end

-- Formats an integer; faster than the conversions of Lua and Redis.
local function decimal(n)
  return format('%d', n)
end

-- Calls a command with many arguments, in chunks that fit on the stack.
local function call_in_chunks(command, key, list)
  local n = #list
  if n == 0 then return end
  if n <= 2000 then
    call(command, key, unpack(list))
    return
  end
  for from = 1, n, 2000 do
    call(command, key, unpack(list, from, min(from + 1999, n)))
  end
end

-- Makes a queue's state the context of a call: it lists every state that the call has loaded.
local function begin_context(q, registry)
  q.q = q
  q.registry = registry
  q.loaded = { [q.p] = q }
  q.deleted_messages = {}
  return q
end

local function attach(q, s)
  s.q = q
  q.loaded[s.p] = s
  return s
end

-- Returns a state of the context's queue, loaded at most once; nil if it does not exist.
local function state_at(q, p)
  local s = q.loaded[p]
  if s then return s end
  s = load_state(p)
  return s and attach(q, s)
end

-- Loads the queue or group that a call names, and its queue; nil if it does not exist.
local function open_context(keys)
  local s = load_state(keys[1])
  if not s then return nil end
  if s.kind == KIND_QUEUE then return begin_context(s, keys[2]) end
  local q = load_state(s.source)
  if not q then return nil end
  return attach(begin_context(q, keys[2]), s)
end

local function group_states(q)
  if q.group_states then return q.group_states end
  local all = {}
  if q.groups > 0 then
    for _, value in ipairs(call('HVALS', q.p .. KEY_GROUPS)) do
      local _, p = unpack_bytes(GROUP_ENTRY, value)
      local s = state_at(q, p)
      if s then all[#all + 1] = s end
    end
  end
  q.group_states = all
  return all
end

local function retention_log(q)
  if q.has_retention_log == 0 then return nil end
  return state_at(q, q.p .. KEY_RETENTION_LOG)
end

-- Defers the removal of a delivery state, an entry of the claimed set or a timer, so that one
-- command removes many.
local function defer_removal(s, which, member)
  local list = s[which]
  if list then list[#list + 1] = member else s[which] = { member } end
end

-- Schedules the next due time of a state no later than `time`.
local function schedule(s, time)
  if time < s.due then s.due = time end
end

-- Moves the start of each expiry run whose first message was deleted to the next message.
local function advance_expiry_runs(q, deleted)
  for n = 1, 2 do
    local expiry, stream = q.p .. KEY_EXPIRY .. n, q.p .. KEY_MESSAGES .. n
    for _, sequence in ipairs(deleted) do
      if call('ZREM', expiry, sequence) == 1 then
        q.expiry_runs = q.expiry_runs - 1
        local next = call('XRANGE', stream, sequence, '+', 'COUNT', 1)[1]
        if next then
          local _, _, expires = unpack_bytes(HEADER_TIMES, next[2][2])
          q.expiry_runs = q.expiry_runs + call('ZADD', expiry, expires, next[1]:sub(1, -3))
        else
          q['tail_expiry' .. n] = NEVER
        end
      end
    end
  end
end

-- Makes the removals that were deferred.
local function flush_removals(q)
  for _, s in pairs(q.loaded) do
    if s.removed_delivery then call_in_chunks('HDEL', s.p .. KEY_DELIVERY, s.removed_delivery) end
    if s.removed_claimed then call_in_chunks('ZREM', s.p .. KEY_CLAIMED, s.removed_claimed) end
    if s.removed_timers then call_in_chunks('ZREM', s.p .. KEY_TIMERS, s.removed_timers) end
    s.removed_delivery, s.removed_claimed, s.removed_timers = false, false, false
  end
  local deleted = q.deleted_messages
  if #deleted == 0 then return end
  q.deleted_messages = {}
  call_in_chunks('XDEL', q.p .. KEY_MESSAGES_1, deleted)
  if q.has_stream2 > 0 then call_in_chunks('XDEL', q.p .. KEY_MESSAGES_2, deleted) end
  -- A few runs that start with a deleted message may stay until they are due.
  if q.expiry_runs > 4 then advance_expiry_runs(q, deleted) end
  -- An empty stream still takes memory.
  if q.ready + q.delayed + q.claimed + q.ready_keyed == 0 then
    for n = 1, 2 do
      if call('XLEN', q.p .. KEY_MESSAGES .. n) == 0 then
        q.expiry_runs = q.expiry_runs - call('ZCARD', q.p .. KEY_EXPIRY .. n)
        call('DEL', q.p .. KEY_MESSAGES .. n, q.p .. KEY_EXPIRY .. n)
        q['tail_expiry' .. n] = NEVER
        if n == 2 then q.has_stream2 = 0 end
      end
    end
  end
end

-- Saves every state that a call has changed, and publishes the changes to the nodes that watch.
local function commit(q)
  flush_removals(q)
  for p, s in pairs(q.loaded) do
    local new = pack_state(s)
    if new ~= s.raw then
      call('SET', p, new)
      if s.due ~= s.original_due then
        if s.due < NEVER then
          call('ZADD', q.registry, s.due, p)
        else
          call('ZREM', q.registry, p)
        end
      end
    end
    if s.newly_claimable > 0 or s.posted or s.due < s.original_due then
      -- How many more messages can be claimed, whether one was posted, the next due time.
      local event = format('%d %d %d', s.newly_claimable, s.posted and 1 or 0, s.due)
      call('SPUBLISH', p .. KEY_EVENTS, event)
    end
  end
end

-- Counts completed messages per minute of the clock, for the current minute and the one before.
local function count_completed(s, n, now)
  if n == 0 then return end
  local minute = floor(now / 60000)
  if minute == s.minute + 1 then
    s.minute, s.completed_previous, s.completed = minute, s.completed, 0
  elseif minute ~= s.minute and minute + 1 ~= s.minute then
    s.minute, s.completed_previous, s.completed = minute, 0, 0
  end
  s.completed = s.completed + n
end
