//! What the lease protocol relies on: conditions that one of many meets, transactions that take effect once or not at all,
//! reads that may be stale, and the requests of the Kinesis Client Library.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Barrier};
use std::thread;

use aws_model::dynamodb::{DynamoDb, Refusal};
use serde_json::{Value as Json, json};

use crate::dynamodb::{TABLE, bad, call, good, with_table};

fn lease(model: &DynamoDb, key: &str, owner: &str, counter: u64) {
    good(
        model,
        "PutItem",
        &json!({ "TableName": TABLE, "ConditionExpression": "attribute_not_exists(leaseKey)", "Item": {
        "leaseKey": { "S": key }, "leaseOwner": { "S": owner }, "leaseCounter": { "N": counter.to_string() }, "checkpoint": { "S": "TRIM_HORIZON" } } }),
    );
}

fn decide(key: &str, owner: &str) -> Json {
    json!({ "Update": { "TableName": TABLE, "Key": { "leaseKey": { "S": key } }, "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        "UpdateExpression": "SET pendingCheckpoint = :end, pendingCheckpointState = :manifest",
        "ConditionExpression": "leaseOwner = :owner AND checkpoint = :start AND attribute_not_exists(pendingCheckpointState)",
        "ExpressionAttributeValues": { ":end": { "S": "100" }, ":manifest": { "B": "bQ==" }, ":owner": { "S": owner }, ":start": { "S": "TRIM_HORIZON" } } } })
}

fn row(model: &DynamoDb, key: &str) -> Json {
    good(model, "GetItem", &json!({ "TableName": TABLE, "Key": { "leaseKey": { "S": key } }, "ConsistentRead": true }))
        ["Item"]
        .clone()
}

#[test]
fn of_eight_contenders_for_an_update_exactly_one_wins() {
    let (model, _) = with_table();
    lease(&model, "a", "nobody", 0);
    let barrier = Arc::new(Barrier::new(8));
    let workers: Vec<_> = (0..8)
        .map(|worker| {
            let (model, barrier) = (model.clone(), Arc::clone(&barrier));
            thread::spawn(move || {
                let mut won = 0_u64;
                for round in 0..2_400 {
                    let (status, answer) = call(&model, "UpdateItem", &json!({
                        "TableName": TABLE, "Key": { "leaseKey": { "S": "a" } },
                        "UpdateExpression": "SET leaseCounter = :next, leaseOwner = :me", "ConditionExpression": "leaseCounter = :seen",
                        "ExpressionAttributeValues": { ":seen": { "N": round.to_string() }, ":next": { "N": (round + 1).to_string() }, ":me": { "S": worker.to_string() } } }));
                    match status {
                        200 => won += 1,
                        _ => assert!(answer["__type"].as_str().unwrap().ends_with("ConditionalCheckFailedException")),
                    }
                    // All see the round decided before any contends for the next one.
                    barrier.wait();
                }
                won
            })
        })
        .collect();
    let won: u64 = workers.into_iter().map(|worker| worker.join().unwrap()).sum();
    assert_eq!(won, 2_400);
    assert_eq!(row(&model, "a")["leaseCounter"]["N"], "2400");
}

#[test]
fn a_transaction_is_all_or_nothing_and_has_a_reason_for_each_item() {
    let (model, _) = with_table();
    for n in 0..100 {
        lease(&model, &n.to_string(), if n == 42 { "other" } else { "me" }, 0);
    }
    let all: Vec<Json> = (0..100).map(|n| decide(&n.to_string(), "me")).collect();
    let before = model.items(TABLE);
    let (status, answer) = call(&model, "TransactWriteItems", &json!({ "TransactItems": all }));
    assert_eq!(status, 400);
    assert!(answer["__type"].as_str().unwrap().ends_with("#TransactionCanceledException"));
    assert!(
        answer["Message"]
            .as_str()
            .unwrap()
            .starts_with("Transaction cancelled, please refer cancellation reasons for specific reasons [None, ")
    );
    let reasons = answer["CancellationReasons"].as_array().unwrap();
    for (n, reason) in reasons.iter().enumerate() {
        if n == 42 {
            assert_eq!(reason["Code"], "ConditionalCheckFailed");
            assert_eq!(reason["Message"], "The conditional request failed");
            assert_eq!(reason["Item"]["leaseOwner"], json!({ "S": "other" }));
        } else {
            assert_eq!(*reason, json!({ "Code": "None" }));
        }
    }
    assert_eq!(reasons.len(), 100);
    assert_eq!(model.items(TABLE), before);
    let mine: Vec<Json> = (0..100).filter(|n| *n != 42).map(|n| decide(&n.to_string(), "me")).collect();
    assert_eq!(good(&model, "TransactWriteItems", &json!({ "TransactItems": mine })), json!({}));
    assert!(
        model.items(TABLE).iter().all(|row| row["leaseKey"]["S"] == "42" || row["pendingCheckpoint"]["S"] == "100")
    );
    // Decided twice: refused, since a manifest is pending.
    let (status, _) = call(&model, "TransactWriteItems", &json!({ "TransactItems": mine }));
    assert_eq!(status, 400);
}

#[test]
fn transactions_have_limits() {
    let (model, _) = with_table();
    let many: Vec<Json> = (0..101).map(|n| decide(&n.to_string(), "me")).collect();
    assert!(
        bad(&model, "TransactWriteItems", &json!({ "TransactItems": many })).1.contains("less than or equal to 100")
    );
    assert!(
        bad(&model, "TransactWriteItems", &json!({ "TransactItems": [] })).1.contains("greater than or equal to 1")
    );
    let twice = json!({ "TransactItems": [decide("a", "me"), { "Delete": { "TableName": TABLE, "Key": { "leaseKey": { "S": "a" } } } }] });
    assert_eq!(
        bad(&model, "TransactWriteItems", &twice).1,
        "Transaction request cannot include multiple operations on one item"
    );
    let large: Vec<Json> = (0..11).map(|n| json!({ "Put": { "TableName": TABLE, "Item": { "leaseKey": { "S": n.to_string() }, "x": { "S": "x".repeat(400_000) } } } })).collect();
    assert!(bad(&model, "TransactWriteItems", &json!({ "TransactItems": large })).1.contains("4 MB"));
    assert!(model.items(TABLE).is_empty());
}

#[test]
fn put_delete_and_check_share_a_transaction() {
    let (model, _) = with_table();
    lease(&model, "parent", "me", 1);
    lease(&model, "gone", "me", 1);
    let transaction = |owner: &str| {
        json!({ "TransactItems": [
        { "Put": { "TableName": TABLE, "Item": { "leaseKey": { "S": "child" } }, "ConditionExpression": "attribute_not_exists(leaseKey)" } },
        { "Delete": { "TableName": TABLE, "Key": { "leaseKey": { "S": "gone" } } } },
        { "ConditionCheck": { "TableName": TABLE, "Key": { "leaseKey": { "S": "parent" } }, "ConditionExpression": "leaseOwner = :o",
                              "ExpressionAttributeValues": { ":o": { "S": owner } } } }] })
    };
    let (_, answer) = call(&model, "TransactWriteItems", &transaction("other"));
    assert_eq!(
        answer["CancellationReasons"],
        json!([{ "Code": "None" }, { "Code": "None" }, { "Code": "ConditionalCheckFailed", "Message": "The conditional request failed" }])
    );
    good(&model, "TransactWriteItems", &transaction("me"));
    let got = good(
        &model,
        "TransactGetItems",
        &json!({ "TransactItems": [
        { "Get": { "TableName": TABLE, "Key": { "leaseKey": { "S": "gone" } } } },
        { "Get": { "TableName": TABLE, "Key": { "leaseKey": { "S": "child" } } } }] }),
    );
    assert_eq!(got, json!({ "Responses": [{}, { "Item": { "leaseKey": { "S": "child" } } }] }));
}

#[test]
fn a_repeated_transaction_with_its_token_has_no_second_effect() {
    let (model, clock) = with_table();
    lease(&model, "a", "me", 0);
    let add = |by: &str, token: &str| {
        json!({ "ClientRequestToken": token, "TransactItems": [{ "Update": { "TableName": TABLE, "Key": { "leaseKey": { "S": "a" } },
        "UpdateExpression": "ADD leaseCounter :by", "ExpressionAttributeValues": { ":by": { "N": by } } } }] })
    };
    good(&model, "TransactWriteItems", &add("1", "t"));
    good(&model, "TransactWriteItems", &add("1", "t"));
    assert_eq!(row(&model, "a")["leaseCounter"]["N"], "1");
    assert_eq!(bad(&model, "TransactWriteItems", &add("2", "t")).0, "IdempotentParameterMismatchException");
    clock.fetch_add(599_999, Ordering::Relaxed);
    good(&model, "TransactWriteItems", &add("1", "t"));
    assert_eq!(row(&model, "a")["leaseCounter"]["N"], "1");
    clock.fetch_add(1, Ordering::Relaxed);
    good(&model, "TransactWriteItems", &add("1", "t"));
    assert_eq!(row(&model, "a")["leaseCounter"]["N"], "2");
    // A transaction that was refused is not remembered.
    model.refuse_transaction(1, 0, Refusal::TransactionConflict);
    assert_eq!(bad(&model, "TransactWriteItems", &add("1", "u")).0, "TransactionCanceledException");
    good(&model, "TransactWriteItems", &add("1", "u"));
    assert_eq!(row(&model, "a")["leaseCounter"]["N"], "3");
}

#[test]
fn planned_refusals_happen_and_write_nothing() {
    let (model, _) = with_table();
    lease(&model, "a", "me", 0);
    lease(&model, "b", "me", 0);
    let both = json!({ "TransactItems": [decide("a", "me"), decide("b", "me")] });
    let before = model.items(TABLE);
    for (refusal, code, kind) in [
        (Refusal::TransactionConflict, "TransactionConflict", "TransactionCanceledException"),
        (Refusal::Throttling, "ThrottlingError", "TransactionCanceledException"),
        (Refusal::ThroughputExceeded, "ProvisionedThroughputExceeded", "TransactionCanceledException"),
        (Refusal::InProgress, "", "TransactionInProgressException"),
        (Refusal::RequestLimitExceeded, "", "RequestLimitExceeded"),
    ] {
        model.refuse_transaction(1, 1, refusal);
        let (status, answer) = call(&model, "TransactWriteItems", &both);
        assert_eq!(status, 400);
        assert!(answer["__type"].as_str().unwrap().ends_with(kind));
        if !code.is_empty() {
            assert_eq!(answer["CancellationReasons"][0], json!({ "Code": "None" }));
            assert_eq!(answer["CancellationReasons"][1]["Code"], code);
        }
    }
    let delete = json!({ "TableName": TABLE, "Key": { "leaseKey": { "S": "a" } } });
    model.refuse_write(2, Refusal::ThroughputExceeded);
    model.refuse_write(1, Refusal::TransactionConflict);
    model.refuse_write(3, Refusal::Internal);
    assert_eq!(bad(&model, "DeleteItem", &delete).0, "TransactionConflictException");
    assert_eq!(bad(&model, "DeleteItem", &delete).0, "ProvisionedThroughputExceededException");
    assert_eq!(call(&model, "DeleteItem", &delete).0, 500);
    assert_eq!(model.items(TABLE), before);
    good(&model, "TransactWriteItems", &both);
    good(&model, "DeleteItem", &delete);
    assert_eq!(row(&model, "a"), Json::Null);
}

#[test]
fn a_failed_condition_returns_the_item_on_request() {
    let (model, _) = with_table();
    lease(&model, "a", "other", 7);
    let mut renew = json!({ "TableName": TABLE, "Key": { "leaseKey": { "S": "a" } }, "UpdateExpression": "ADD leaseCounter :1", "ConditionExpression": "leaseOwner = :me",
        "ExpressionAttributeValues": { ":1": { "N": "1" }, ":me": { "S": "me" } } });
    let (_, answer) = call(&model, "UpdateItem", &renew);
    assert_eq!(
        answer,
        json!({ "__type": "com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException", "message": "The conditional request failed" })
    );
    renew["ReturnValuesOnConditionCheckFailure"] = json!("ALL_OLD");
    assert_eq!(call(&model, "UpdateItem", &renew).1["Item"]["leaseCounter"], json!({ "N": "7" }));
    renew["Key"]["leaseKey"]["S"] = json!("missing");
    assert_eq!(call(&model, "UpdateItem", &renew).1.get("Item"), None);
}

#[test]
fn stale_reads_return_the_past_and_consistent_reads_the_present() {
    let (model, _) = with_table();
    lease(&model, "a", "first", 0);
    let own = |owner: &str| {
        good(
            &model,
            "UpdateItem",
            &json!({ "TableName": TABLE, "Key": { "leaseKey": { "S": "a" } }, "UpdateExpression": "SET leaseOwner = :o",
        "ExpressionAttributeValues": { ":o": { "S": owner } } }),
        )
    };
    own("second");
    lease(&model, "b", "third", 0);
    own("third");
    let seen = |consistent: bool| {
        good(
            &model,
            "GetItem",
            &json!({ "TableName": TABLE, "Key": { "leaseKey": { "S": "a" } }, "ConsistentRead": consistent }),
        )["Item"]["leaseOwner"]["S"]
            .clone()
    };
    let scanned = |consistent: bool| {
        good(&model, "Scan", &json!({ "TableName": TABLE, "ConsistentRead": consistent }))["Count"].clone()
    };
    let index = |owner: &str| {
        good(
            &model,
            "Query",
            &json!({ "TableName": TABLE, "IndexName": "LeaseOwnerToLeaseKeyIndex", "KeyConditionExpression": "leaseOwner = :o",
        "ExpressionAttributeValues": { ":o": { "S": owner } } }),
        )
    };
    assert_eq!((seen(false), seen(true)), (json!("third"), json!("third")));
    assert_eq!(index("third")["Count"], 2);
    for (writes, owner, rows) in [
        (1, json!("second"), 2),
        (2, json!("second"), 1),
        (3, json!("first"), 1),
        (4, json!(null), 0),
        (99, json!(null), 0),
    ] {
        model.set_stale_writes(writes);
        assert_eq!((seen(false), scanned(false)), (owner, json!(rows)), "{writes}");
        assert_eq!((seen(true), scanned(true)), (json!("third"), json!(2)));
    }
    model.set_stale_writes(1);
    let first = index("third");
    assert_eq!(
        (first["Count"].clone(), first["Items"][0].clone()),
        (json!(1), json!({ "leaseKey": { "S": "b" }, "leaseOwner": { "S": "third" } }))
    );
    assert_eq!(index("second")["Items"][0]["leaseKey"]["S"], "a");
    let consistent = json!({ "TableName": TABLE, "IndexName": "LeaseOwnerToLeaseKeyIndex", "ConsistentRead": true, "KeyConditionExpression": "leaseOwner = :o",
        "ExpressionAttributeValues": { ":o": { "S": "third" } } });
    assert_eq!(bad(&model, "Query", &consistent).1, "Consistent reads are not supported on global secondary indexes");
}

#[test]
fn an_index_has_only_owned_leases_and_pages_by_its_own_key() {
    let (model, _) = with_table();
    for n in 0..7 {
        lease(&model, &n.to_string(), "me", 0);
    }
    good(&model, "PutItem", &json!({ "TableName": TABLE, "Item": { "leaseKey": { "S": "unowned" } } }));
    let mut query = json!({ "TableName": TABLE, "IndexName": "LeaseOwnerToLeaseKeyIndex", "KeyConditionExpression": "#o = :o", "Limit": 3,
        "ExpressionAttributeNames": { "#o": "leaseOwner" }, "ExpressionAttributeValues": { ":o": { "S": "me" } } });
    let mut keys = Vec::new();
    loop {
        let page = good(&model, "Query", &query);
        keys.extend(page["Items"].as_array().unwrap().iter().map(|item| {
            assert_eq!(item.as_object().unwrap().len(), 2, "KEYS_ONLY");
            item["leaseKey"]["S"].as_str().unwrap().to_owned()
        }));
        let Some(last) = page.get("LastEvaluatedKey") else { break };
        assert_eq!(last.as_object().unwrap().len(), 2);
        query["ExclusiveStartKey"] = last.clone();
    }
    assert_eq!(keys, ["0", "1", "2", "3", "4", "5", "6"]);
}

/// The recorded requests of KCL 3.1.3, in the order of a lease's life.
#[test]
fn the_kinesis_client_librarys_own_requests_work() {
    let (model, _) = with_table();
    let create = json!({ "TableName": TABLE, "Expected": { "leaseKey": { "Exists": false } }, "Item": {
        "checkpoint": { "S": "TRIM_HORIZON" }, "endingHashKey": { "S": "113427455640312821154458202477256070484" }, "leaseCounter": { "N": "0" },
        "ownerSwitchesSinceCheckpoint": { "N": "0" }, "checkpointSubSequenceNumber": { "N": "0" }, "leaseKey": { "S": "s" }, "startingHashKey": { "S": "0" } } });
    good(&model, "PutItem", &create);
    assert_eq!(bad(&model, "PutItem", &create).0, "ConditionalCheckFailedException");
    let update = |updates: Json, expected: Json| json!({ "TableName": TABLE, "Key": { "leaseKey": { "S": "s" } }, "AttributeUpdates": updates, "Expected": expected });
    // The leader assigns.
    let assign = update(
        json!({ "leaseOwner": { "Value": { "S": "w1" }, "Action": "PUT" }, "checkpointOwner": { "Action": "DELETE" },
                "leaseCounter": { "Value": { "N": "1" }, "Action": "ADD" }, "ownerSwitchesSinceCheckpoint": { "Value": { "N": "1" }, "Action": "ADD" } }),
        json!({ "leaseOwner": { "Exists": false }, "checkpointOwner": { "Exists": false }, "leaseKey": { "Value": { "S": "s" }, "Exists": true } }),
    );
    good(&model, "UpdateItem", &assign);
    assert_eq!(bad(&model, "UpdateItem", &assign).0, "ConditionalCheckFailedException");
    // The owner renews.
    let renew = update(
        json!({ "leaseCounter": { "Value": { "N": "2" }, "Action": "PUT" }, "throughputKBps": { "Value": { "N": "0.5" }, "Action": "PUT" } }),
        json!({ "leaseCounter": { "Value": { "N": "1" } }, "checkpointOwner": { "Exists": false } }),
    );
    good(&model, "UpdateItem", &renew);
    // It prepares a checkpoint with bytes of its own, then reaches the shard's end.
    good(
        &model,
        "UpdateItem",
        &update(
            json!({ "pendingCheckpoint": { "Value": { "S": "5" }, "Action": "PUT" }, "pendingCheckpointState": { "Value": { "B": "AQI=" }, "Action": "PUT" }, "leaseCounter": { "Value": { "N": "3" }, "Action": "PUT" } }),
            json!({ "leaseCounter": { "Value": { "N": "2" } } }),
        ),
    );
    assert_eq!(row(&model, "s")["pendingCheckpointState"], json!({ "B": "AQI=" }), "bytes stay bytes");
    good(
        &model,
        "UpdateItem",
        &update(
            json!({ "checkpoint": { "Value": { "S": "SHARD_END" }, "Action": "PUT" }, "childShardIds": { "Value": { "SS": ["c1", "c2"] }, "Action": "PUT" },
                "pendingCheckpoint": { "Action": "DELETE" }, "pendingCheckpointState": { "Action": "DELETE" }, "leaseCounter": { "Value": { "N": "4" }, "Action": "PUT" } }),
            json!({ "leaseCounter": { "Value": { "N": "3" }, "ComparisonOperator": null } }),
        ),
    );
    assert_eq!(
        row(&model, "s"),
        json!({
        "checkpoint": { "S": "SHARD_END" }, "childShardIds": { "SS": ["c1", "c2"] }, "leaseCounter": { "N": "4" }, "leaseOwner": { "S": "w1" }, "throughputKBps": { "N": "0.5" },
        "endingHashKey": { "S": "113427455640312821154458202477256070484" }, "ownerSwitchesSinceCheckpoint": { "N": "1" },
        "checkpointSubSequenceNumber": { "N": "0" }, "leaseKey": { "S": "s" }, "startingHashKey": { "S": "0" } })
    );
    // Removing attributes of a missing lease creates none.
    good(
        &model,
        "UpdateItem",
        &json!({ "TableName": TABLE, "Key": { "leaseKey": { "S": "no" } }, "AttributeUpdates": { "x": { "Action": "DELETE" } } }),
    );
    assert_eq!(row(&model, "no"), Json::Null);
    let mixed = json!({ "TableName": TABLE, "Key": { "leaseKey": { "S": "s" } }, "AttributeUpdates": { "x": { "Action": "DELETE" } }, "ConditionExpression": "attribute_exists(leaseKey)" });
    assert!(
        bad(&model, "UpdateItem", &mixed)
            .1
            .starts_with("Can not use both expression and non-expression parameters in the same request")
    );
}
