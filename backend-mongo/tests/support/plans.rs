//! Records the commands that a server executes, and checks their query plans.

use mongodb::{
    Client, Database,
    bson::{Bson, Document, doc},
};
use test_servers::mongo::Mongo;

/// Fields of a command that do not belong to its query.
const ENVELOPE: [&str; 10] = [
    "$db",
    "$clusterTime",
    "$readPreference",
    "autocommit",
    "lsid",
    "maxTimeMS",
    "readConcern",
    "startTransaction",
    "txnNumber",
    "writeConcern",
];

/// Returns a database through a client with the driver's defaults.
pub(crate) async fn bare(server: &Mongo, name: &str) -> Database {
    Client::with_uri_str(server.uri()).await.unwrap().database(name)
}

/// Starts to record the commands that the server executes.
pub(crate) async fn record(database: &Database) {
    database.run_command(doc! { "profile": 2 }).await.unwrap();
}

/// Stops recording, and returns the queries and writes of a collection, oldest first.
pub(crate) async fn recorded(database: &Database, collection: &str) -> Vec<Document> {
    database.run_command(doc! { "profile": 0 }).await.unwrap();
    let profile = database.collection::<Document>("system.profile");
    let namespace = format!("{}.{collection}", database.name());
    let mut cursor =
        profile.find(doc! { "ns": namespace }).sort(doc! { "$natural": 1 }).await.unwrap();
    let mut commands = Vec::new();
    while cursor.advance().await.unwrap() {
        let entry = cursor.deserialize_current().unwrap();
        let mut command = entry.get_document("command").unwrap().clone();
        let (verb, _) = command.iter().next().unwrap();
        // Updates and deletions are recorded one by one, without their command.
        if command.contains_key("q") {
            if let Ok(hint) = command.get_document("hint").and_then(|hint| hint.get_str("$hint")) {
                let hint = hint.to_owned();
                command.insert("hint", hint);
            }
            command = if entry.get_str("op").unwrap() == "remove" {
                doc! { "delete": collection, "deletes": [command] }
            } else {
                doc! { "update": collection, "updates": [command] }
            };
        } else if !["find", "aggregate", "findAndModify", "count", "delete"]
            .contains(&verb.as_str())
        {
            continue;
        }
        commands.push(command);
    }
    commands
}

/// Checks that a command uses this index, without a collection scan or a sort.
pub(crate) async fn assert_by_index(database: &Database, command: &Document, index: &str) {
    let plan = explain(database, command).await;
    assert_eq!(plan.indexes, [index], "{command} is executed by {plan:?}");
    assert!(!plan.stages.iter().any(|stage| stage == "COLLSCAN"), "{command}: {plan:?}");
    assert!(!plan.stages.iter().any(|stage| stage == "SORT"), "{command}: {plan:?}");
}

/// The stages and indexes of a query plan.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) stages: Vec<String>,
    pub(crate) indexes: Vec<String>,
}

/// Returns the winning plan of a command.
pub(crate) async fn explain(database: &Database, command: &Document) -> Plan {
    let mut command = command.clone();
    for name in ENVELOPE {
        command.remove(name);
    }
    let explain = doc! { "explain": command, "verbosity": "queryPlanner" };
    let answer = database.run_command(explain).await.unwrap();
    let mut plan = Plan::default();
    collect(&Bson::Document(answer), "", &mut plan);
    assert!(!plan.stages.is_empty(), "there is no plan");
    plan
}

/// Collects all stages and indexes of winning plans.
fn collect(value: &Bson, name: &str, plan: &mut Plan) {
    match value {
        Bson::Document(document) => {
            for (name, value) in document {
                if name != "rejectedPlans" && name != "command" {
                    collect(value, name, plan);
                }
            }
        }
        Bson::Array(values) => values.iter().for_each(|value| collect(value, name, plan)),
        Bson::String(text) if name == "stage" => plan.stages.push(text.clone()),
        Bson::String(text) if name == "indexName" => plan.indexes.push(text.clone()),
        _ => {}
    }
}
