//! How a server carries out commands, and whether it does so by an index.

use mongodb::{
    Client, Database,
    bson::{Bson, Document, doc},
};
use test_servers::mongo::Mongo;

/// What a command has in it that is not about what is asked.
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

/// A database as a client without any options of ours sees it.
pub(crate) async fn bare(server: &Mongo, name: &str) -> Database {
    Client::with_uri_str(server.uri()).await.unwrap().database(name)
}

/// Lets the server write down each command that it carries out.
pub(crate) async fn record(database: &Database) {
    database.run_command(doc! { "profile": 2 }).await.unwrap();
}

/// The commands that were written down and ask a collection for something, oldest first.
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
        // Updates and deletions are written down one by one, without the command around.
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

/// Checks that a command is carried out by this index, and looks at no document that it need not.
pub(crate) async fn assert_by_index(database: &Database, command: &Document, index: &str) {
    let plan = explain(database, command).await;
    assert_eq!(plan.indexes, [index], "{command} is carried out by {plan:?}");
    assert!(!plan.stages.iter().any(|stage| stage == "COLLSCAN"), "{command}: {plan:?}");
    assert!(!plan.stages.iter().any(|stage| stage == "SORT"), "{command}: {plan:?}");
}

/// How the planner carries out a command.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) stages: Vec<String>,
    pub(crate) indexes: Vec<String>,
}

/// Asks the planner for the plan that it chose.
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

/// Finds all stages and indexes within winning plans.
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
