-- Dead letters, on their way from one queue to another. The two may be in different slots, so a way
-- takes several steps: the messages are kept for the mover (state t), stored where they go, which
-- remembers where they came from, and then removed. A mover that dies lets them be free again after
-- a while; whoever moves them then is told that they have arrived.

-- How many letters are looked at to find some that are free.
local LOOK_AHEAD = 1024

-- ARGV: now, limit, rate or ''. Keeps free dead letters for the mover, the oldest first.
-- Answers { status, expired, 1 if there are more, when the pace went on before, when it does now,
-- letters … }.
local function take_letters(keys, args)
  local now, limit, rate = tonumber(args[1]), tonumber(args[2]), tonumber(args[3])
  local r, answer = settled(keys, now)
  if not r then return answer end
  local held_back = r.claimed > 0 or r.delayed > 0 or call('HLEN', r.p .. ':k') > r.open_lines
  local window = held_back and max(LOOK_AHEAD, limit + 1) or limit + 1
  local found, is_open, more, bytes = {}, {}, held_back and r.letters > window, 0
  for _, sequence in ipairs(call('ZRANGE', r.p .. ':z', 0, window - 1)) do
    sequence = tonumber(sequence)
    local m = find(r, sequence, now)
    local is_free = m and m.state == 'f'
    if m and m.state == 'l' then
      if is_open[m.key] == nil then
        is_open[m.key] = call('ZSCORE', r.p .. ':o', m.key) and true or false
      end
      is_free = is_open[m.key]
    end
    if is_free then
      if #found == limit or bytes >= 1048576 then
        more = true
        break
      end
      local message = entry(r.q, sequence)
      found[#found + 1] = { sequence, m, message }
      bytes = bytes + #message
    end
  end
  local before = r.next_redrive
  if rate and #found > 0 then
    r.next_redrive = max(before, now) + floor(#found * 1000 / rate)
  end
  answer = { OK, 0, more and 1 or 0, before, r.next_redrive }
  for _, one in ipairs(found) do
    begin_move(r, one[1], one[2], now)
    say(answer, one[1], one[2], one[3])
  end
  finish(r.q)
  answer[2] = r.q.expired
  return answer
end

-- KEYS: queue, registry. ARGV: now, end of the window, group or '', 1 if it is for all who read the
-- queue, then of each letter: where it comes from and the message.
-- Answers 1 for each; nil if the queue or the group is unknown.
local function receive_letters(keys, args)
  local q = open_queue_only(keys)
  if not q then return nil end
  local now, until_, to = tonumber(args[1]), tonumber(args[2]), q
  if args[3] ~= '' then
    local raw = call('HGET', q.p .. ':g', args[3])
    local _, p
    if raw then _, p = unpack_bytes('<I6s', raw) end
    to = p and reading(q, p)
    if not to then return nil end
  end
  local answer = {}
  for i = 5, #args, 2 do
    local message = args[i + 1]
    -- No producer can name an id that begins so.
    if not duplicate(q, '\0' .. args[i], until_, now) then
      if args[4] == '1' then
        arrive(q, message, now)
      else
        local _, _, expires = meta_of(message)
        local sequence = append(q, 2, message, expires)
        put(to, sequence, fresh_record('', message), now)
        to.posted = true
      end
    end
    answer[#answer + 1] = 1
  end
  finish(q)
  return answer
end

-- KEYS: queue, registry. ARGV: where letters came from that are gone there.
local function forget_origins(keys, args)
  for _, token in ipairs(args) do
    call('HDEL', keys[1] .. ':u', '\0' .. token)
    call('ZREM', keys[1] .. ':t', 'u\0' .. token)
  end
  return 1
end

-- ARGV: now, what became of them (d they are gone, s they stay, o they stay and have no origin any
-- more), when the pace was to go on, when it does, then sequences.
local function end_move(keys, args)
  local now, fate = tonumber(args[1]), args[2]
  local r, answer = settled(keys, now)
  if not r then return answer end
  if args[3] ~= '' and r.next_redrive == tonumber(args[3]) then r.next_redrive = tonumber(args[4]) end
  for i = 5, #args do
    local sequence = tonumber(args[i])
    local m = find(r, sequence, now)
    if m then
      if fate == 'd' then
        remove(r, sequence, m)
      else
        if fate == 'o' then
          forget_letter(r, sequence)
          m.letter, m.plain = false, nil
        end
        if m.state == 't' then
          put_away(r, 'dead_t', 'm' .. sequence)
          flush(r.q)
          free(r, sequence, m)
        end
      end
    end
  end
  finish(r.q)
  return { OK, r.q.expired }
end
