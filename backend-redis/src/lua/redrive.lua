-- Dead letters: moving messages from one queue to another.
--
-- The two queues may be in different slots, so a transfer takes several calls. The node reserves
-- the messages at the source (STATE_IN_TRANSFER), stores them at the destination, which records the
-- transfer ids, and removes them from the source. If the node crashes, the reservation expires
-- after TRANSFER_TIMEOUT. The next transfer finds the ids at the destination and only removes the
-- messages from the source.

-- Number of dead letters that are read to find ready ones.
local MAX_LOOK_AHEAD = 1024

-- Reserves ready dead letters for a transfer, oldest first.
-- ARGV: now, limit, rate or ''.
-- Returns { status, expired, 1 if there are more, first time that earlier redrives left unused,
-- first time that this one leaves unused, messages … }.
local function reserve_dead_letters(keys, args)
  local now, limit, rate = tonumber(args[1]), tonumber(args[2]), tonumber(args[3])
  local s, reply = open_and_apply_due(keys, now)
  if not s then return reply end
  local some_not_ready = s.claimed > 0 or s.delayed > 0
    or call('HLEN', s.p .. KEY_KEY_STATES) > s.available_keys
  local window = some_not_ready and max(MAX_LOOK_AHEAD, limit + 1) or limit + 1
  local found, is_available, more, bytes = {}, {}, some_not_ready and s.dead_letters > window, 0
  for _, sequence in ipairs(call('ZRANGE', s.p .. KEY_DEAD_LETTERS, 0, window - 1)) do
    sequence = tonumber(sequence)
    local m = find_message(s, sequence, now)
    local is_ready = m and m.state == STATE_READY
    if m and m.state == STATE_READY_KEYED then
      if is_available[m.key] == nil then
        is_available[m.key] = call('ZSCORE', s.p .. KEY_AVAILABLE_KEYS, m.key) and true or false
      end
      is_ready = is_available[m.key]
    end
    if is_ready then
      if #found == limit or bytes >= MAX_REPLY_BYTES then
        more = true
        break
      end
      local message = read_message(s.q, sequence)
      found[#found + 1] = { sequence, m, message }
      bytes = bytes + #message
    end
  end
  local previous = s.next_redrive
  if rate and #found > 0 then
    s.next_redrive = max(previous, now) + floor(#found * 1000 / rate)
  end
  reply = { STATUS_OK, 0, more and 1 or 0, previous, s.next_redrive }
  for _, one in ipairs(found) do
    reserve_for_transfer(s, one[1], one[2], now)
    append_message(reply, one[1], one[2], one[3])
  end
  commit(s.q)
  reply[2] = s.q.expired
  return reply
end

-- Stores messages at the destination of a transfer, each once.
-- KEYS: queue, registry, guard. ARGV: now, time until which the transfer ids are kept, group or '',
-- 1 if the messages are for the queue and all its groups, then of each message its transfer id and
-- its text.
-- Returns 1 for each message; nil if the queue or the group does not exist.
local function accept_transfer(keys, args)
  local q = open_queue_context(keys)
  if not q then return nil end
  local now, kept_until, destination = tonumber(args[1]), tonumber(args[2]), q
  if args[3] ~= '' then
    local raw = call('HGET', q.p .. KEY_GROUPS, args[3])
    local _, p
    if raw then _, p = unpack_bytes(GROUP_ENTRY, raw) end
    destination = p and state_at(q, p)
    if not destination then return nil end
  end
  local reply = {}
  for i = 5, #args, 2 do
    local message = args[i + 1]
    if not find_duplicate(q, TRANSFER_ID_PREFIX .. args[i], kept_until, now) then
      if args[4] == '1' then
        enqueue(q, message, now)
      else
        local _, _, expires = header_of(message)
        local sequence = append_to_stream(q, 2, message, expires)
        insert(destination, sequence, initial_delivery('', message), now)
        destination.posted = true
      end
    end
    reply[#reply + 1] = 1
  end
  commit(q)
  return reply
end

-- Forgets the ids of transfers whose messages are removed from the source.
-- KEYS: queue, registry, guard. ARGV: transfer ids.
local function forget_transfer_ids(keys, args)
  for _, id in ipairs(args) do
    call('HDEL', keys[1] .. KEY_DEDUPLICATION, TRANSFER_ID_PREFIX .. id)
    call('ZREM', keys[1] .. KEY_TIMERS, TIMER_DEDUPLICATION .. TRANSFER_ID_PREFIX .. id)
  end
  return 1
end

-- Ends a transfer at the source.
-- ARGV: now, one of TRANSFER_…, the redrive time that reserve_dead_letters returned and the one
-- that replaces it (or '' and ''), sequences.
local function finish_transfer(keys, args)
  local now, outcome = tonumber(args[1]), args[2]
  local s, reply = open_and_apply_due(keys, now)
  if not s then return reply end
  if args[3] ~= '' and s.next_redrive == tonumber(args[3]) then
    s.next_redrive = tonumber(args[4])
  end
  for i = 5, #args do
    local sequence = tonumber(args[i])
    local m = find_message(s, sequence, now)
    if m then
      if outcome == TRANSFER_MOVED then
        remove(s, sequence, m)
      else
        if outcome == TRANSFER_ORPHANED then
          clear_dead_letter_flag(s, sequence)
          m.dead_letter, m.as_posted = false, nil
        end
        if m.state == STATE_IN_TRANSFER then
          defer_removal(s, 'removed_timers', TIMER_MESSAGE .. sequence)
          flush_removals(s.q)
          make_ready(s, sequence, m)
        end
      end
    end
  end
  commit(s.q)
  return { STATUS_OK, s.q.expired }
end
