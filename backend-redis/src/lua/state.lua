-- What the functions share: the state of a reading, and how it is kept.
--
-- A *reading* is what consumers take messages from: a queue itself, or one of its groups; what a
-- queue retains (its log) is kept like one. Its state is one packed string under its key; all else
-- lies under keys that begin with that one, in the same slot:
--
--   :1 :2   streams, of the queue alone: the messages, each written once. In :1 those that only the
--           queue has and that were free from the start, in :2 all others. The id is the sequence.
--   :e1 :e2 zsets, of the queue alone: runs. From a run's first sequence on messages expire one
--           after the other; its score is when the first of them does
--   :r      hash, of the queue alone: how many readings have a message, if more than one has
--   :u      hash, of the queue alone: deduplication id -> sequence and end of the window
--   :g :n   hash and zset, of the queue alone: groups by name, and their names in order
--   :f      zset by sequence: free messages without a key, but for the fresh ones: those of :1
--           behind the cursor, which are in no index at all
--   :l :x   zsets: messages in line, by sequence and by key and sequence
--   :d :c   zsets by sequence: delayed, and claimed or being moved elsewhere
--   :m      hash: sequence -> record, for what no longer is as it was posted
--   :h      hash: claim -> its terms and sequences
--   :v      zset by first sequence, of the queue alone: claims that are not yet written on their
--           messages, because nobody has asked for more than to claim and to delete
--   :t      zset by time: 'c' claim, 'm' sequence, 'u' deduplication id
--   :k :o   hash and zset: lines by key, and the open ones by turn
--   :z      zset by sequence: dead letters
--
-- Times are milliseconds, ttls seconds. Nothing is read from a clock.
--
-- Each function is called with a key that never exists, too (the guard): a Cluster runs none that
-- names a key which is not there while its slot moves, and so none in the midst of half a queue.

-- How many messages a step handles at the most.
local STEP = 256
-- How many messages are read at once: they come with their bodies.
local CHUNK = 32
-- Longer than any time.
local NEVER = 281474976710655
-- By how much the expiry of a message may be put off to keep a queue's in order.
local SLACK = 2000
-- How long a message that is being moved elsewhere is kept for the mover.
local MOVING = 30000

-- While a library is loaded there are no libraries: these are set when a function first runs.
local call, pack, unpack_bytes, floor, min, max, FORMAT, HOT, NO_CLAIM, format

local function prepare()
  call, pack, unpack_bytes = redis.call, struct.pack, struct.unpack
  floor, min, max = math.floor, math.min, math.max
  -- The numbers that the usual calls need come first.
  HOT = '<' .. string.rep('d', 22)
  FORMAT = '<' .. string.rep('d', 29) .. 'ss'
  format = string.format
  NO_CLAIM = string.rep('\0', 16)
end

local function load(p)
  local raw = call('GET', p)
  if not raw then return nil end
  local
    last, ready, fresh, tail1, stamp, due, groups, kind, cursor, delayed, claimed, ranges,
    minute, handled, before, in_line, open_lines, has_log, letters, shared, runs, second, turns,
    plain_turn, next_redrive, tail2, fill_after, fill_up_to, fill_since, source, name
    = unpack_bytes(FORMAT, raw)
  -- Made in one piece, which is quicker than field by field.
  return {
    p = p, raw = raw, woke = 0, posted = false, was_due = due, q = false, registry = false,
    loaded = false, gone = false, expired = 0, readings = false, dead_m = false, dead_c = false,
    dead_t = false,
    last = last, ready = ready, fresh = fresh, tail1 = tail1, stamp = stamp, due = due,
    groups = groups, kind = kind, cursor = cursor, delayed = delayed, claimed = claimed,
    ranges = ranges, minute = minute, handled = handled, before = before, in_line = in_line,
    open_lines = open_lines, has_log = has_log, letters = letters, shared = shared, runs = runs,
    second = second, turns = turns, plain_turn = plain_turn, next_redrive = next_redrive,
    tail2 = tail2, fill_after = fill_after, fill_up_to = fill_up_to, fill_since = fill_since,
    source = source, name = name
  }
end

-- Where those are that a delete changes: claimed, ranges, minute, handled, before.
local CLAIMED_AT = 8 * 10

-- The first fields of a state, in the order in which they are packed.
local function hot_fields(raw)
  return unpack_bytes(HOT, raw)
end

local function packed(r)
  return pack(FORMAT,
    r.last, r.ready, r.fresh, r.tail1, r.stamp, r.due, r.groups, r.kind, r.cursor, r.delayed,
    r.claimed, r.ranges, r.minute, r.handled, r.before, r.in_line, r.open_lines, r.has_log,
    r.letters, r.shared, r.runs, r.second, r.turns, r.plain_turn, r.next_redrive, r.tail2,
    r.fill_after, r.fill_up_to, r.fill_since, r.source, r.name)
end

-- A reading that has nothing yet. A queue is of kind 0, all else of kind 1.
local function blank(p, source, name)
  return {
    p = p, raw = '', woke = 0, posted = false, was_due = NEVER, q = false, registry = false,
    loaded = false, gone = false, expired = 0, readings = false, dead_m = false, dead_c = false,
    dead_t = false,
    last = 0, ready = 0, fresh = 0, tail1 = NEVER, stamp = 0, due = NEVER, groups = 0,
    kind = source == '' and 0 or 1, cursor = 0, delayed = 0, claimed = 0, ranges = 0, minute = 0,
    handled = 0, before = 0, in_line = 0, open_lines = 0, has_log = 0, letters = 0, shared = 0,
    runs = 0, second = 0, turns = 0, plain_turn = 0, next_redrive = 0, tail2 = NEVER,
    fill_after = 0, fill_up_to = 0, fill_since = 0, source = source, name = name
  }
end

-- A number as Redis takes it: quicker than what Lua and Redis do by themselves.
local function text(n)
  return format('%d', n)
end

-- A command with many arguments, in pieces that fit on the stack.
local function bulk(command, key, list)
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

-- One call's view: the queue, and whichever readings of it were looked at.
local function view(q, registry)
  q.q = q
  q.registry = registry
  q.loaded = { [q.p] = q }
  q.gone = {}
  return q
end

local function attach(q, r)
  r.q = q
  q.loaded[r.p] = r
  return r
end

local function reading(q, p)
  local r = q.loaded[p]
  if r then return r end
  r = load(p)
  return r and attach(q, r)
end

-- What a call is about, with its queue; nil if it is unknown.
local function open(keys)
  local r = load(keys[1])
  if not r then return nil end
  if r.kind == 0 then return view(r, keys[2]) end
  local q = load(r.source)
  if not q then return nil end
  return attach(view(q, keys[2]), r)
end

local function group_readings(q)
  if q.readings then return q.readings end
  local all = {}
  if q.groups > 0 then
    for _, value in ipairs(call('HVALS', q.p .. ':g')) do
      local _, p = unpack_bytes('<I6s', value)
      local r = reading(q, p)
      if r then all[#all + 1] = r end
    end
  end
  q.readings = all
  return all
end

local function log_of(q)
  if q.has_log == 0 then return nil end
  return reading(q, q.p .. ':log')
end

-- Notes something for later: a record, a place among the claimed or a timer to be removed.
local function put_away(r, which, member)
  local list = r[which]
  if list then list[#list + 1] = member else r[which] = { member } end
end

-- Something of a reading is due at this time.
local function lower(r, time)
  if time < r.due then r.due = time end
end

-- Writes what was put off.
local function flush(q)
  for _, r in pairs(q.loaded) do
    if r.dead_m then bulk('HDEL', r.p .. ':m', r.dead_m) end
    if r.dead_c then bulk('ZREM', r.p .. ':c', r.dead_c) end
    if r.dead_t then bulk('ZREM', r.p .. ':t', r.dead_t) end
    r.dead_m, r.dead_c, r.dead_t = false, false, false
  end
  local gone = q.gone
  if #gone > 0 then
    q.gone = {}
    bulk('XDEL', q.p .. ':1', gone)
    if q.second > 0 then bulk('XDEL', q.p .. ':2', gone) end
    -- A run that begins with a message which is gone begins with the next one. One or two may
    -- stay until they are due.
    if q.runs > 4 then
      for n = 1, 2 do
        local e, s = q.p .. ':e' .. n, q.p .. ':' .. n
        for _, sequence in ipairs(gone) do
          if call('ZREM', e, sequence) == 1 then
            q.runs = q.runs - 1
            local next = call('XRANGE', s, sequence, '+', 'COUNT', 1)[1]
            if next then
              local _, _, expires = unpack_bytes('<I6I6I6', next[2][2])
              q.runs = q.runs + call('ZADD', e, expires, next[1]:sub(1, -3))
            else
              q['tail' .. n] = NEVER
            end
          end
        end
      end
    end
    -- An empty stream still takes space.
    if q.ready + q.delayed + q.claimed + q.in_line == 0 then
      for n = 1, 2 do
        if call('XLEN', q.p .. ':' .. n) == 0 then
          q.runs = q.runs - call('ZCARD', q.p .. ':e' .. n)
          call('DEL', q.p .. ':' .. n, q.p .. ':e' .. n)
          q['tail' .. n] = NEVER
          if n == 2 then q.second = 0 end
        end
      end
    end
  end
end

-- Writes everything that a call has changed, and tells those who wait.
local function finish(q)
  flush(q)
  for p, r in pairs(q.loaded) do
    local new = packed(r)
    if new ~= r.raw then
      call('SET', p, new)
      if r.due ~= r.was_due then
        if r.due < NEVER then
          call('ZADD', q.registry, r.due, p)
        else
          call('ZREM', q.registry, p)
        end
      end
    end
    if r.woke > 0 or r.posted or r.due < r.was_due then
      -- How many more can be claimed, whether something was posted, when something is due.
      call('SPUBLISH', p .. ':w', format('%d %d %d', r.woke, r.posted and 1 or 0, r.due))
    end
  end
end

-- Counts messages that were handled, by the minute of the clock.
local function count_handled(r, n, now)
  if n == 0 then return end
  local minute = floor(now / 60000)
  if minute == r.minute + 1 then
    r.minute, r.before, r.handled = minute, r.handled, 0
  elseif minute ~= r.minute and minute + 1 ~= r.minute then
    r.minute, r.before, r.handled = minute, 0, 0
  end
  r.handled = r.handled + n
end
