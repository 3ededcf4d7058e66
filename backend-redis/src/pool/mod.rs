//! The message pool: each method calls a function of the library on the server that has the queue.

mod claim;
mod codec;
mod group;
mod maintenance;
mod message;
mod post_batcher;
mod queue_cache;
mod redis_pool;
mod redrive;
mod reply;
mod watch;
mod watch_task;

pub use self::redis_pool::Redis;
