-- Makes the functions callable.

local function register(name, f, flags)
  local function callback(keys, args)
    if not call then prepare() end
    return f(keys, args)
  end
  redis.register_function({
    function_name = FUNCTION_PREFIX .. name,
    callback = callback,
    flags = flags or {},
  })
end

-- Redis runs these although it has reached its memory limit, because they free memory or only read.
local ALLOW_OOM = { 'allow-oom' }
local NO_WRITES = { 'no-writes' }
register('post', post)
register('list', list, ALLOW_OOM)
register('get', get, ALLOW_OOM)
register('delete', delete, ALLOW_OOM)
register('delete_many', delete_many, ALLOW_OOM)
register('reschedule', reschedule)
register('claim', claim)
register('get_claim', get_claim, ALLOW_OOM)
register('renew', renew, ALLOW_OOM)
register('release', release_claim, ALLOW_OOM)
register('acknowledge', acknowledge, ALLOW_OOM)
register('pop', pop, ALLOW_OOM)
register('create_group', create_group)
register('group_source', group_source, NO_WRITES)
register('get_group', get_group, NO_WRITES)
register('list_groups', list_groups, NO_WRITES)
register('seek_group', seek_group)
register('delete_group', delete_group, ALLOW_OOM)
register('reserve_dead_letters', reserve_dead_letters)
register('accept_transfer', accept_transfer)
register('forget_transfer_ids', forget_transfer_ids, ALLOW_OOM)
register('finish_transfer', finish_transfer, ALLOW_OOM)
register('open_queue', open_queue)
register('drop_queue', drop_queue, ALLOW_OOM)
register('stats', stats, ALLOW_OOM)
register('purge', purge, ALLOW_OOM)
register('poll', poll, ALLOW_OOM)
register('sweep', sweep, ALLOW_OOM)
