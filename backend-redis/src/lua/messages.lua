-- Messages: post, list, get, delete, reschedule.

-- KEYS: queue, registry. ARGV: now, how many arguments a message has, then of each the message, or
-- the message, its deduplication id (may be '') and the end of its window.
-- Answers a sequence for each message, negative for a duplicate; nil if the queue is unknown.
local function post_any(keys, args)
  local q = load(keys[1])
  if not q or q.kind == 1 then return nil end
  view(q, keys[2])
  local now, width = tonumber(args[1]), tonumber(args[2])
  local answer = {}
  for i = 3, #args, width do
    local first
    if width == 3 and args[i + 1] ~= '' then
      first = duplicate(q, args[i + 1], tonumber(args[i + 2]), now)
    end
    if first then
      answer[#answer + 1] = -first
    else
      arrive(q, args[i], now)
      answer[#answer + 1] = q.last
    end
  end
  finish(q)
  return answer
end

-- The same, quicker, if no message needs more than its place in the stream and the queue has no
-- groups: only the first fields of the queue's state are read and written.
local function post(keys, args)
  local p, now = keys[1], tonumber(args[1])
  local raw = args[2] == '1' and call('GET', p)
  if not raw then return post_any(keys, args) end
  local last, ready, fresh, tail, stamp, due, groups, kind = unpack_bytes('<dddddddd', raw)
  if kind == 1 or groups > 0 then return post_any(keys, args) end
  local n = #args
  for i = 3, n do
    local posted, visible, expires, _, flags = unpack_bytes('<I6I6I6I5B', args[i])
    -- One run takes them all.
    if flags ~= NONE or visible > now then return post_any(keys, args) end
    if expires < tail then
      args[i], expires = in_run(args[i], expires, tail, posted, stamp)
      if expires < tail then return post_any(keys, args) end
    end
    tail, stamp = expires, max(stamp, posted)
  end
  local stream, answer = p .. ':1', {}
  for i = 3, n do
    last = last + 1
    call('XADD', stream, text(last), 'm', args[i])
    answer[#answer + 1] = last
  end
  local more = #answer
  call('SETRANGE', p, 0, pack('<ddddd', last, ready + more, fresh + more, tail, stamp))
  call('SPUBLISH', p .. ':w', format('%d 1 %d', more, due))
  return answer
end

local function client_of(meta)
  local _, _, _, _, _, _, at = meta_of(meta)
  return (unpack_bytes('<Hc0', meta, at))
end

-- A source of sequences in order, read in pieces.
local function index_source(key, after, piece)
  local list, i = {}, 1
  local from = '(' .. text(after)
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

-- The same for fresh messages, which are read whole.
local function fresh_source(q, after, piece)
  local list, i, more = {}, 1, true
  local from = max(after, q.cursor) + 1
  return function()
    if i > #list and more then
      list = call('XRANGE', q.p .. ':1', text(from), '+', 'COUNT', piece)
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

-- The same if only fresh messages are to be listed. Whoever has read the stream from the right place
-- on, in the same transaction, is only told so.
local function list_fresh(q, after, wanted, guess)
  local start = max(after, q.cursor) + 1
  local answer = { OK, 0, 0, q.cursor }
  if guess == start then
    answer[3] = -1
  elseif q.fresh > 0 and wanted > 0 then
    local n = 5
    for _, found in ipairs(call('XRANGE', q.p .. ':1', text(start), '+', 'COUNT', wanted)) do
      answer[n], answer[n + 1], answer[n + 2] = sequence_of(found[1]), found[2][2], ''
      n = n + 3
    end
  end
  return answer
end

-- ARGV: now, after, how many, free, claimed, delayed (1 or 0), where the caller has read the stream
-- from or 0, client to hide, if any.
-- Answers { status, expired, what comes next, the queue's cursor, messages … }. What comes next is 0
-- if the page is whole, -1 if it is what the caller has read, or else where to go on because much was
-- looked at and the page is not full yet.
local function list(keys, args)
  local now, after, wanted = tonumber(args[1]), tonumber(args[2]), tonumber(args[3])
  local guess = tonumber(args[7])
  if guess > 0 and args[4] == '1' then
    -- The quick way, by the first fields of the state.
    local raw = call('GET', keys[1])
    if raw then
      local _, ready, fresh, _, _, due, _, kind, cursor, delayed, claimed, _, _, _, _, in_line =
        hot_fields(raw)
      if kind == 0 and due > now and ready == fresh and in_line == 0
        and (args[5] == '0' or claimed == 0) and (args[6] == '0' or delayed == 0)
        and guess == max(after, cursor) + 1 then
        return { OK, 0, -1, cursor }
      end
    end
  end
  local r, answer = settled(keys, now)
  if not r then return answer end
  local q, hidden = r.q, args[8]
  if r == q and not hidden and args[4] == '1' and r.ready == r.fresh and r.in_line == 0
    and (args[5] == '0' or r.claimed == 0) and (args[6] == '0' or r.delayed == 0) then
    answer = list_fresh(q, after, wanted, guess)
    finish(q)
    answer[2] = q.expired
    return answer
  end
  local piece = min(wanted, 128)
  local heads, takes = {}, {}
  local function add(peek, take)
    heads[#heads + 1], takes[#takes + 1] = peek, take
  end
  if args[4] == '1' then
    if r.ready > r.fresh then add(index_source(r.p .. ':f', after, piece)) end
    if r.in_line > 0 then add(index_source(r.p .. ':l', after, piece)) end
    if r.fresh > 0 then add(fresh_source(q, after, piece)) end
  end
  if args[5] == '1' and r.claimed > 0 then add(index_source(r.p .. ':c', after, piece)) end
  if args[6] == '1' and r.delayed > 0 then add(index_source(r.p .. ':d', after, piece)) end
  answer = { OK, 0, 0, q.cursor }
  local found, looked, bytes = 0, 0, 0
  while found < wanted do
    local first, which
    for i, peek in ipairs(heads) do
      local sequence = peek()
      if sequence and (not first or sequence < first) then first, which = sequence, i end
    end
    if not first then break end
    if (looked >= 2000 and looked >= 2 * wanted) or bytes > 1048576 then
      answer[3] = after
      break
    end
    after = first
    looked = looked + 1
    local taken = takes[which]()
    local message = taken or entry(q, first)
    if hidden and client_of(message) == hidden then
      bytes = bytes + #message
    else
      found = found + 1
      local n = #answer
      answer[n + 1], answer[n + 2] = first, message
      answer[n + 3] = not taken and call('HGET', r.p .. ':m', first) or ''
    end
  end
  finish(q)
  answer[2] = q.expired
  return answer
end

-- ARGV: now, sequences. Answers { status, expired, messages … }.
local function get(keys, args)
  local now = tonumber(args[1])
  local r, answer = settled(keys, now)
  if not r then return answer end
  answer = { OK, 0 }
  for i = 2, #args do
    local sequence = tonumber(args[i])
    local m = find(r, sequence, now)
    if m then
      say(answer, sequence, complete(m, r.q, sequence), (entry(r.q, sequence)))
    end
  end
  finish(r.q)
  answer[2] = r.q.expired
  return answer
end

-- Calls f with every group that has a copy of a message which nobody has seen yet.
local function each_copy(r, sequence, m, now, f)
  local q = r.q
  if r ~= q or m.state ~= 'd' or m.count > 0 then return false end
  for _, copy in ipairs(group_readings(q)) do
    local its = find(copy, sequence, now)
    if its and its.state == 'd' and its.count == 0 then f(copy, its) end
  end
  return true
end

-- Removes a message, and with it the copies of groups if nobody has seen it yet.
local function remove_everywhere(r, sequence, m, now)
  local scheduled = each_copy(r, sequence, m, now, function(copy, its)
    remove(copy, sequence, its)
  end)
  if scheduled then forget_retained(r.q, sequence) end
  remove(r, sequence, m)
end

-- ARGV: now, sequence, claim or ''. Answers { status, expired, outcome }: 0 deleted, 1 missing,
-- 2 claimed, 3 unknown claim, 4 not claimed, 5 claimed by another.
local function delete(keys, args)
  local now, sequence, id = tonumber(args[1]), tonumber(args[2]), args[3]
  local r, answer = settled(keys, now)
  if not r then return answer end
  local m = find(r, sequence, now)
  local outcome = 0
  if not m then
    outcome = 1
  else
    -- What is being moved elsewhere is held by nobody that has a name.
    local holder = m.state == 'c' and m.claim or (m.state == 't' and '') or nil
    if id == '' then
      if holder then outcome = 2 end
    elseif not live_claim(r, id, now) then
      outcome = 3
    elseif not holder then
      outcome = 4
    elseif holder ~= id then
      outcome = 5
    end
  end
  if outcome == 0 then
    remove_everywhere(r, sequence, m, now)
    count_handled(r, 1, now)
  end
  finish(r.q)
  return { OK, r.q.expired, outcome }
end

-- ARGV: now, number of claims, claims, sequences. Answers { status, expired, deleted or -1 }.
local function delete_many(keys, args)
  local now, claims = tonumber(args[1]), tonumber(args[2])
  if claims == 0 and #args > 2 and #args <= 1000 then
    local deleted = delete_claimed(keys[1], now, { unpack(args, 3) }, false)
    if deleted then return { OK, 0, deleted } end
  end
  local r, answer = settled(keys, now)
  if not r then
    if answer[1] == UNKNOWN then answer = { OK, 0, claims == 0 and 0 or -1 } end
    return answer
  end
  local found, seen, holders = {}, {}, {}
  local raws = {}
  if #args >= 3 + claims and #args <= 1000 then
    raws = call('HMGET', r.p .. ':m', unpack(args, 3 + claims))
  end
  for i = 3 + claims, #args do
    local sequence = tonumber(args[i])
    if not seen[sequence] then
      seen[sequence] = true
      local raw = raws[i - 2 - claims]
      local m = raw and read_record(raw) or find(r, sequence, now)
      if m then
        found[#found + 1] = { sequence, m }
        if m.state == 'c' then holders[m.claim] = true end
      end
    end
  end
  local deleted = #found
  for i = 3, 2 + claims do
    if not holders[args[i]] then deleted = -1 end
  end
  if deleted >= 0 then
    for _, pair in ipairs(found) do
      if pair[2].state == 't' then
        deleted = deleted - 1
      else
        remove_everywhere(r, pair[1], pair[2], now)
      end
    end
    count_handled(r, deleted, now)
  end
  finish(r.q)
  return { OK, r.q.expired, deleted }
end

-- Moves a message that is not visible yet to another time.
local function put_off(r, sequence, m, visible, now)
  m.plain = nil
  m.visible = visible
  m.expires = min(visible + 1000 * m.ttl, NEVER)
  if visible > now then
    put_record(r, sequence, m)
    set_timer(r, sequence, min(visible, m.expires))
  else
    free(r, sequence, m)
  end
end

-- ARGV: now, sequence, when. Answers { status, expired, outcome }: 0 moved, 1 missing, 2 visible.
local function reschedule(keys, args)
  local now, sequence, visible = tonumber(args[1]), tonumber(args[2]), tonumber(args[3])
  local r, answer = settled(keys, now)
  if not r then return answer end
  local q = r.q
  visible = max(visible, now)
  local m = find(r, sequence, now)
  local outcome = 0
  if not m then
    outcome = 1
  elseif m.state ~= 'd' then
    outcome = 2
  else
    local scheduled = each_copy(r, sequence, m, now, function(copy, its)
      put_off(copy, sequence, its, visible, now)
    end)
    local log = scheduled and log_of(q)
    if log and call('ZSCORE', log.p .. ':f', sequence) then
      local its = fresh_record('f', (entry(q, sequence)))
      its.visible, its.expires = visible, min(visible + 1000 * its.ttl, NEVER)
      put_record(log, sequence, its)
      set_timer(log, sequence, its.expires)
    end
    put_off(r, sequence, m, visible, now)
  end
  finish(q)
  return { OK, q.expired, outcome }
end
