//! The durability that a pool declares.

use backend_mongo::{MongoOptions, MongoPool};
use storage_traits::pool::{
    Durability::{self, Fsync, Majority, Memory},
    MessagePool,
};
use test_servers::mongo::Mongo;

use crate::support::{own_database, single, standalone, triple};

async fn declared(server: &Mongo, options: &str) -> Durability {
    let uri = server.uri_of(&own_database());
    let mark = if uri.contains('?') { '&' } else { '?' };
    let options = MongoOptions::parse(&format!("{uri}{mark}timeoutMS=30000{options}")).unwrap();
    MongoPool::open(options).await.unwrap().durability()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_declares_what_its_servers_keep() {
    for (options, alone, one, three) in [
        ("", Fsync, Fsync, Majority),
        ("&w=majority", Fsync, Fsync, Majority),
        ("&w=1", Fsync, Fsync, Fsync),
        ("&w=1&journal=false", Memory, Memory, Memory),
        ("&journal=false", Memory, Memory, Memory),
    ] {
        let servers = [(standalone(), alone), (single(), one), (triple(), three)];
        for (server, durability) in servers {
            assert_eq!(declared(server, options).await, durability, "{options}");
        }
    }
    assert_eq!(declared(triple(), "&w=2").await, Majority);
    assert_eq!(declared(triple(), "&w=3").await, Majority);
}
