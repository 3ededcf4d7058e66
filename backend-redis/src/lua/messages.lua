-- Messages: post, list, get, delete, reschedule.

-- KEYS: queue, registry, guard. ARGV: now, number of arguments of a message (1 or 3), then of each
-- message its text, with 3 also its deduplication id (may be '') and the end of its window.
-- Returns a sequence for each message, negative for a duplicate; nil if the queue does not exist.
local function post_general(keys, args)
  local q = load_state(keys[1])
  if not q or q.kind ~= KIND_QUEUE then return nil end
  begin_context(q, keys[2])
  local now, width = tonumber(args[1]), tonumber(args[2])
  local reply = {}
  for i = 3, #args, width do
    local first
    if width == 3 and args[i + 1] ~= '' then
      first = find_duplicate(q, args[i + 1], tonumber(args[i + 2]), now)
    end
    if first then
      reply[#reply + 1] = -first
    else
      enqueue(q, args[i], now)
      reply[#reply + 1] = q.last
    end
  end
  commit(q)
  return reply
end

-- Posts like post_general, faster if the messages only have to be appended to stream 1 and extend
-- its last expiry run: reads and writes only the first fields of the state.
local function post(keys, args)
  local p, now = keys[1], tonumber(args[1])
  local raw = args[2] == '1' and call('GET', p)
  if not raw then return post_general(keys, args) end
  local {{names last..kind}} = unpack_bytes({{format last..kind}}, raw)
  if kind ~= KIND_QUEUE or groups > 0 then return post_general(keys, args) end
  local n = #args
  for i = 3, n do
    local posted, visible, expires, _, flags = unpack_bytes(HEADER_UP_TO_FLAGS, args[i])
    if flags ~= FORMAT_V1 or visible > now then return post_general(keys, args) end
    if expires < tail_expiry1 then
      args[i], expires = join_expiry_run(args[i], expires, tail_expiry1, posted, last_posted_at)
      if expires < tail_expiry1 then return post_general(keys, args) end
    end
    tail_expiry1, last_posted_at = expires, max(last_posted_at, posted)
  end
  local stream, reply = p .. KEY_MESSAGES_1, {}
  for i = 3, n do
    last = last + 1
    call('XADD', stream, decimal(last), 'm', args[i])
    reply[#reply + 1] = last
  end
  local count = #reply
  ready, fresh = ready + count, fresh + count
  call('SETRANGE', p, {{offset last}},
    pack({{format last..last_posted_at}}, {{names last..last_posted_at}}))
  call('SPUBLISH', p .. KEY_EVENTS, format('%d 1 %d', count, due))
  return reply
end

local function client_of(message)
  local _, _, _, _, _, _, at = header_of(message)
  return (unpack_bytes(HEADER_TEXT, message, at))
end

-- Iterates over an index in the order of sequences, read in pieces. Returns a function that returns
-- the next sequence, and one that moves on to the one after it.
local function index_iterator(key, after, piece)
  local list, i = {}, 1
  local from = '(' .. decimal(after)
  local more = true
  return function()
    if i > #list and more then
      list = call('ZRANGEBYSCORE', key, from, '+inf', 'LIMIT', 0, piece)
      more = #list == piece
      i = 1
      if #list > 0 then from = '(' .. list[#list] end
    end
    return list[i] and tonumber(list[i])
  end, function() i = i + 1 end
end

-- Iterates over fresh messages like index_iterator; the second function also returns the message.
local function fresh_iterator(q, after, piece)
  local list, i, more = {}, 1, true
  local from = max(after, q.cursor) + 1
  return function()
    if i > #list and more then
      list = call('XRANGE', q.p .. KEY_MESSAGES_1, decimal(from), '+', 'COUNT', piece)
      more = #list == piece
      i = 1
      if #list > 0 then from = sequence_of(list[#list][1]) + 1 end
    end
    return list[i] and sequence_of(list[i][1])
  end, function()
    i = i + 1
    return list[i - 1][2][2]
  end
end

-- Lists fresh messages, when there are no others to list. If the caller has already read the stream
-- from the right sequence, in the same transaction, the reply only confirms that.
local function list_fresh(q, after, wanted, guess)
  local start = max(after, q.cursor) + 1
  local reply = { STATUS_OK, 0, 0, q.cursor }
  if guess == start then
    reply[3] = LIST_AS_READ
  elseif q.fresh > 0 and wanted > 0 then
    local n = 5
    local from = decimal(start)
    for _, found in ipairs(call('XRANGE', q.p .. KEY_MESSAGES_1, from, '+', 'COUNT', wanted)) do
      reply[n], reply[n + 1], reply[n + 2] = sequence_of(found[1]), found[2][2], ''
      n = n + 3
    end
  end
  return reply
end

-- ARGV: now, after, number of messages, include free, claimed, delayed (1 or 0), first sequence
-- that the caller has read from stream 1 or 0, client whose messages are hidden, if any.
-- Returns { status, expired, next, the queue's cursor, messages … }. `next` is 0 if the page is
-- complete, LIST_AS_READ if it is what the caller has read, or the sequence after which to
-- continue, because a step reads a bounded number of messages and the page is not full.
local function list(keys, args)
  local now, after, wanted = tonumber(args[1]), tonumber(args[2]), tonumber(args[3])
  local guess = tonumber(args[7])
  if guess > 0 and args[4] == '1' then
    -- The fast path reads only the first fields of the state.
    local raw = call('GET', keys[1])
    if raw then
      local {{names ready..ready_keyed}} =
        unpack_bytes({{format ready..ready_keyed}}, raw, {{position ready}})
      if kind == KIND_QUEUE and due > now and ready == fresh and ready_keyed == 0
        and (args[5] == '0' or claimed == 0) and (args[6] == '0' or delayed == 0)
        and guess == max(after, cursor) + 1 then
        return { STATUS_OK, 0, LIST_AS_READ, cursor }
      end
    end
  end
  local s, reply = open_and_apply_due(keys, now)
  if not s then return reply end
  local q, hidden = s.q, args[8]
  if s == q and not hidden and args[4] == '1' and s.ready == s.fresh and s.ready_keyed == 0
    and (args[5] == '0' or s.claimed == 0) and (args[6] == '0' or s.delayed == 0) then
    reply = list_fresh(q, after, wanted, guess)
    commit(q)
    reply[2] = q.expired
    return reply
  end
  local piece = min(wanted, 128)
  local heads, takes = {}, {}
  local function add(peek, take)
    heads[#heads + 1], takes[#takes + 1] = peek, take
  end
  if args[4] == '1' then
    if s.ready > s.fresh then add(index_iterator(s.p .. KEY_READY, after, piece)) end
    if s.ready_keyed > 0 then add(index_iterator(s.p .. KEY_READY_KEYED, after, piece)) end
    if s.fresh > 0 then add(fresh_iterator(q, after, piece)) end
  end
  if args[5] == '1' and s.claimed > 0 then add(index_iterator(s.p .. KEY_CLAIMED, after, piece)) end
  if args[6] == '1' and s.delayed > 0 then add(index_iterator(s.p .. KEY_DELAYED, after, piece)) end
  reply = { STATUS_OK, 0, 0, q.cursor }
  local found, read, bytes = 0, 0, 0
  while found < wanted do
    local first, which
    for i, peek in ipairs(heads) do
      local sequence = peek()
      if sequence and (not first or sequence < first) then first, which = sequence, i end
    end
    if not first then break end
    if (read >= 2000 and read >= 2 * wanted) or bytes > MAX_REPLY_BYTES then
      reply[3] = after
      break
    end
    after = first
    read = read + 1
    local taken = takes[which]()
    local message = taken or read_message(q, first)
    if hidden and client_of(message) == hidden then
      bytes = bytes + #message
    else
      found = found + 1
      local n = #reply
      reply[n + 1], reply[n + 2] = first, message
      reply[n + 3] = not taken and call('HGET', s.p .. KEY_DELIVERY, first) or ''
    end
  end
  commit(q)
  reply[2] = q.expired
  return reply
end

-- ARGV: now, sequences. Returns { status, expired, messages … }.
local function get(keys, args)
  local now = tonumber(args[1])
  local s, reply = open_and_apply_due(keys, now)
  if not s then return reply end
  reply = { STATUS_OK, 0 }
  for i = 2, #args do
    local sequence = tonumber(args[i])
    local m = find_message(s, sequence, now)
    if m then
      append_message(reply, sequence, load_times(m, s.q, sequence), (read_message(s.q, sequence)))
    end
  end
  commit(s.q)
  reply[2] = s.q.expired
  return reply
end

-- If a message of the queue was never visible, calls f with each group in which that holds as well.
-- Returns whether it holds in the queue.
local function each_copy(s, sequence, m, now, f)
  local q = s.q
  if s ~= q or m.state ~= STATE_DELAYED or m.count > 0 then return false end
  for _, copy in ipairs(group_states(q)) do
    local its = find_message(copy, sequence, now)
    if its and its.state == STATE_DELAYED and its.count == 0 then f(copy, its) end
  end
  return true
end

-- Removes a message from a queue or group. Deleting a message of the queue that was never visible
-- removes it from the groups and the retention log, too.
local function remove_everywhere(s, sequence, m, now)
  local scheduled = each_copy(s, sequence, m, now, function(copy, its)
    remove(copy, sequence, its)
  end)
  if scheduled then remove_retained(s.q, sequence) end
  remove(s, sequence, m)
end

-- ARGV: now, sequence, claim or ''. Returns { status, expired, one of DELETE_… }.
local function delete(keys, args)
  local now, sequence, id = tonumber(args[1]), tonumber(args[2]), args[3]
  local s, reply = open_and_apply_due(keys, now)
  if not s then return reply end
  local m = find_message(s, sequence, now)
  local outcome = DELETE_DONE
  if not m then
    outcome = DELETE_MISSING
  else
    -- A message in transfer is held, but by no claim.
    local holder = nil
    if m.state == STATE_CLAIMED then
      holder = m.claim
    elseif m.state == STATE_IN_TRANSFER then
      holder = ''
    end
    if id == '' then
      if holder then outcome = DELETE_CLAIMED end
    elseif not live_claim(s, id, now) then
      outcome = DELETE_UNKNOWN_CLAIM
    elseif not holder then
      outcome = DELETE_NOT_CLAIMED
    elseif holder ~= id then
      outcome = DELETE_CLAIMED_BY_OTHER
    end
  end
  if outcome == DELETE_DONE then
    remove_everywhere(s, sequence, m, now)
    count_completed(s, 1, now)
  end
  commit(s.q)
  return { STATUS_OK, s.q.expired, outcome }
end

-- ARGV: now, number of claims, claims, sequences. Returns { status, expired, number of deleted
-- messages }; -1 deleted if a claim holds none of the messages.
local function delete_many(keys, args)
  local now, claims = tonumber(args[1]), tonumber(args[2])
  if claims == 0 and #args > 2 and #args <= 1000 then
    local deleted = delete_deferred(keys[1], now, { unpack(args, 3) }, false)
    if deleted then return { STATUS_OK, 0, deleted } end
  end
  local s, reply = open_and_apply_due(keys, now)
  if not s then
    if reply[1] == STATUS_UNKNOWN then reply = { STATUS_OK, 0, claims == 0 and 0 or -1 } end
    return reply
  end
  local found, seen, holders = {}, {}, {}
  local raws = {}
  if #args >= 3 + claims and #args <= 1000 then
    raws = call('HMGET', s.p .. KEY_DELIVERY, unpack(args, 3 + claims))
  end
  for i = 3 + claims, #args do
    local sequence = tonumber(args[i])
    if not seen[sequence] then
      seen[sequence] = true
      local raw = raws[i - 2 - claims]
      local m = raw and unpack_delivery(raw) or find_message(s, sequence, now)
      if m then
        found[#found + 1] = { sequence, m }
        if m.state == STATE_CLAIMED then holders[m.claim] = true end
      end
    end
  end
  local deleted = #found
  for i = 3, 2 + claims do
    if not holders[args[i]] then deleted = -1 end
  end
  if deleted >= 0 then
    for _, pair in ipairs(found) do
      if pair[2].state == STATE_IN_TRANSFER then
        deleted = deleted - 1
      else
        remove_everywhere(s, pair[1], pair[2], now)
      end
    end
    count_completed(s, deleted, now)
  end
  commit(s.q)
  return { STATUS_OK, s.q.expired, deleted }
end

-- Changes when a delayed message becomes visible.
local function postpone(s, sequence, m, visible, now)
  m.as_posted = nil
  m.visible = visible
  m.expires = min(visible + 1000 * m.ttl, NEVER)
  if visible > now then
    store_delivery(s, sequence, m)
    set_timer(s, sequence, min(visible, m.expires))
  else
    make_ready(s, sequence, m)
  end
end

-- ARGV: now, sequence, when. Returns { status, expired, one of RESCHEDULE_… }.
local function reschedule(keys, args)
  local now, sequence, visible = tonumber(args[1]), tonumber(args[2]), tonumber(args[3])
  local s, reply = open_and_apply_due(keys, now)
  if not s then return reply end
  local q = s.q
  visible = max(visible, now)
  local m = find_message(s, sequence, now)
  local outcome = RESCHEDULE_DONE
  if not m then
    outcome = RESCHEDULE_MISSING
  elseif m.state ~= STATE_DELAYED then
    outcome = RESCHEDULE_VISIBLE
  else
    local scheduled = each_copy(s, sequence, m, now, function(copy, its)
      postpone(copy, sequence, its, visible, now)
    end)
    local log = scheduled and retention_log(q)
    if log and call('ZSCORE', log.p .. KEY_READY, sequence) then
      local its = initial_delivery(STATE_READY, (read_message(q, sequence)))
      its.visible, its.expires = visible, min(visible + 1000 * its.ttl, NEVER)
      store_delivery(log, sequence, its)
      set_timer(log, sequence, its.expires)
    end
    postpone(s, sequence, m, visible, now)
  end
  commit(q)
  return { STATUS_OK, q.expired, outcome }
end
