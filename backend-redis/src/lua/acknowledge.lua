-- Acknowledgements and pops.

-- Makes a claimed message ready, at once or at the time of its retry.
local function requeue(s, sequence, m, retry, now)
  m.claim = nil
  if retry <= now then
    make_ready(s, sequence, m)
    return
  end
  defer_removal(s, 'removed_claimed', sequence)
  s.claimed = s.claimed - 1
  m.state, m.visible = STATE_DELAYED, retry
  index_delayed(s, sequence, m)
end

-- ARGV: now, claim, then of each message its sequence and the time of its retry, '' for an
-- acknowledged one. Returns { status, expired, 1 or 0 for each }.
local function acknowledge(keys, args)
  local now, id = tonumber(args[1]), args[2]
  local done = {}
  for i = 3, #args, 2 do
    if args[i + 1] ~= '' or i > 1000 then
      done = nil
      break
    end
    done[#done + 1] = args[i]
  end
  -- The usual case: the consumer has processed all messages.
  if done and #done > 0 and delete_deferred(keys[1], now, done, id) then
    local reply = { STATUS_OK, 0 }
    for i = 1, #done do reply[i + 2] = 1 end
    return reply
  end
  local s, reply = open_and_apply_due(keys, now)
  if not s then return reply end
  reply = { STATUS_OK, 0 }
  local seen, completed = {}, 0
  for i = 3, #args, 2 do
    local name, retry, applied = args[i], tonumber(args[i + 1]), 0
    local raw = not seen[name] and call('HGET', s.p .. KEY_DELIVERY, name)
    local m = raw and unpack_delivery(raw)
    if m and m.state == STATE_CLAIMED and m.claim == id then
      seen[name], applied = true, 1
      if retry then
        requeue(s, tonumber(name), load_times(m, s.q, name), retry, now)
      else
        remove(s, tonumber(name), m)
        completed = completed + 1
      end
    end
    reply[#reply + 1] = applied
  end
  count_completed(s, completed, now)
  commit(s.q)
  reply[2] = s.q.expired
  return reply
end

-- ARGV: now, limit. Returns { status, expired, messages … }.
local function pop(keys, args)
  local now, limit = tonumber(args[1]), tonumber(args[2])
  local s, reply = open_and_apply_due(keys, now)
  if not s then return reply end
  local taken, after = {}, 0
  while #taken < limit do
    local key, is_unkeyed = next_source(s, after)
    if not key then break end
    for _, one in ipairs(candidates(s, key, is_unkeyed, after, limit - #taken)) do
      local sequence, m = one[1], one[2]
      if is_unkeyed then after = sequence end
      one[4] = m.as_posted and '' or pack_delivery(m)
      if m.state == STATE_FRESH then s.cursor = sequence end
      remove(s, sequence, m)
      taken[#taken + 1] = one
    end
    if is_unkeyed then
      rotate_unkeyed_to_back(s)
    else
      rotate_to_back(s, key)
    end
  end
  count_completed(s, #taken, now)
  table.sort(taken, by_sequence)
  reply = { STATUS_OK, 0 }
  for i, one in ipairs(taken) do
    local n = 3 * i
    reply[n], reply[n + 1], reply[n + 2] = one[1], one[3], one[4]
  end
  commit(s.q)
  reply[2] = s.q.expired
  return reply
end
