local function register(name, f, flags)
  local function callback(keys, args)
    if not call then prepare() end
    return f(keys, args)
  end
  redis.register_function({
    function_name = 'chapar_VERSION_' .. name,
    callback = callback,
    flags = flags or {},
  })
end

-- What gives space back is done though the server has none left.
local FREES = { 'allow-oom' }
register('post', post)
register('list', list, FREES)
register('get', get, FREES)
register('delete', delete, FREES)
register('delete_many', delete_many, FREES)
register('reschedule', reschedule)
register('claim', claim)
register('get_claim', get_claim, FREES)
register('renew', renew, FREES)
register('release', release_claim, FREES)
register('acknowledge', acknowledge, FREES)
register('pop', pop, FREES)
register('create_group', create_group)
register('source', source, { 'no-writes' })
register('get_group', get_group, { 'no-writes' })
register('list_groups', list_groups, { 'no-writes' })
register('seek_group', seek_group)
register('delete_group', delete_group, FREES)
register('take_letters', take_letters)
register('receive_letters', receive_letters)
register('forget_origins', forget_origins, FREES)
register('end_move', end_move, FREES)
register('open_queue', open_queue)
register('drop_queue', drop_queue, FREES)
register('stats', stats, FREES)
register('purge', purge, FREES)
register('look', look, FREES)
register('sweep', sweep, FREES)
