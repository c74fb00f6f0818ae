//! DynamoDB's API: expressions, reads, limits, tables.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_model::dynamodb::DynamoDb;
use aws_model::http::{Request, Service};
use bytes::Bytes;
use serde_json::{Value as Json, json};

/// The description of a lease table.
pub(crate) const TABLE: &str = "leases";

/// A model, and its clock in milliseconds.
pub(crate) fn model() -> (DynamoDb, Arc<AtomicU64>) {
    let clock = Arc::new(AtomicU64::new(1_700_000_000_000));
    let now = Arc::clone(&clock);
    (DynamoDb::new(move || now.load(Ordering::Relaxed)), clock)
}

/// A request to DynamoDB.
pub(crate) fn request(operation: &str, body: &Json) -> Request {
    Request {
        method: "POST".to_owned(),
        path: "/".to_owned(),
        query: BTreeMap::new(),
        headers: BTreeMap::from([("x-amz-target".to_owned(), format!("DynamoDB_20120810.{operation}"))]),
        body: Bytes::from(body.to_string()),
    }
}

/// Sends a request: the status and the answer.
pub(crate) fn call(model: &DynamoDb, operation: &str, body: &Json) -> (u16, Json) {
    let answer = model.answer(&request(operation, body));
    (answer.status, serde_json::from_slice(&answer.body).unwrap())
}

/// The answer to a request that must succeed.
pub(crate) fn good(model: &DynamoDb, operation: &str, body: &Json) -> Json {
    let (status, answer) = call(model, operation, body);
    assert_eq!(status, 200, "{operation} {body}: {answer}");
    answer
}

/// The code and message of a request that must be refused.
pub(crate) fn bad(model: &DynamoDb, operation: &str, body: &Json) -> (String, String) {
    let (status, answer) = call(model, operation, body);
    assert_eq!(status, 400, "{operation} {body}: {answer}");
    let kind = answer["__type"].as_str().unwrap();
    let message = answer.get("message").or_else(|| answer.get("Message")).unwrap();
    (kind.rsplit_once('#').unwrap().1.to_owned(), message.as_str().unwrap().to_owned())
}

/// A table with the key `leaseKey` and the index that KCL creates.
pub(crate) fn with_table() -> (DynamoDb, Arc<AtomicU64>) {
    let (model, clock) = model();
    good(
        &model,
        "CreateTable",
        &json!({
            "TableName": TABLE, "BillingMode": "PAY_PER_REQUEST",
            "AttributeDefinitions": [{ "AttributeName": "leaseKey", "AttributeType": "S" },
                                     { "AttributeName": "leaseOwner", "AttributeType": "S" }],
            "KeySchema": [{ "AttributeName": "leaseKey", "KeyType": "HASH" }],
            "GlobalSecondaryIndexes": [{ "IndexName": "LeaseOwnerToLeaseKeyIndex",
                "KeySchema": [{ "AttributeName": "leaseOwner", "KeyType": "HASH" },
                              { "AttributeName": "leaseKey", "KeyType": "RANGE" }],
                "Projection": { "ProjectionType": "KEYS_ONLY" } }],
        }),
    );
    (model, clock)
}

fn put(model: &DynamoDb, item: &Json) {
    good(model, "PutItem", &json!({ "TableName": TABLE, "Item": item }));
}

fn item(model: &DynamoDb, key: &str) -> Json {
    good(model, "GetItem", &json!({ "TableName": TABLE, "Key": { "leaseKey": { "S": key } }, "ConsistentRead": true }))
        ["Item"]
        .clone()
}

fn rich() -> Json {
    json!({
        "leaseKey": { "S": "a" }, "n": { "N": "5" }, "s": { "S": "shardId-0001" }, "b": { "B": "AAEC" },
        "flag": { "BOOL": true }, "nothing": { "NULL": true }, "ss": { "SS": ["x", "y"] }, "ns": { "NS": ["1", "2"] },
        "m": { "M": { "deep": { "L": [{ "N": "1" }, { "M": { "end": { "S": "here" } } }] } } },
    })
}

#[test]
fn conditions_have_the_documented_meaning() {
    let (model, _) = with_table();
    put(&model, &rich());
    let values = json!({
        ":5": { "N": "5.0" }, ":4": { "N": "4" }, ":6": { "N": "6" }, ":p": { "S": "shardId" }, ":x": { "S": "x" },
        ":b": { "B": "AAE=" }, ":N": { "S": "N" }, ":1": { "N": "1" }, ":end": { "S": "here" }, ":2": { "N": "2" },
        ":t": { "BOOL": true }, ":12": { "N": "12" },
    });
    for (condition, holds) in [
        ("n = :5", true),
        ("n <> :5", false),
        ("n < :6", true),
        ("n <= :5", true),
        ("n > :5", false),
        ("n >= :5", true),
        ("n BETWEEN :4 AND :6", true),
        ("n BETWEEN :6 AND :6", false),
        ("n IN (:4, :5)", true),
        ("n IN (:4)", false),
        ("attribute_exists(m.deep[1].#end)", true),
        ("attribute_exists(m.deep[2])", false),
        ("attribute_not_exists(absent)", true),
        ("attribute_not_exists(n)", false),
        ("absent = :5", false),
        ("absent <> :5", true),
        ("absent < :5", false),
        ("NOT absent < :5", true),
        ("begins_with(s, :p)", true),
        ("begins_with(b, :b)", true),
        ("begins_with(n, :p)", false),
        ("contains(s, :p)", true),
        ("contains(ss, :x)", true),
        ("contains(ns, :1)", true),
        ("contains(ns, :5)", false),
        ("contains(m.deep, :1)", true),
        ("attribute_type(n, :N)", true),
        ("attribute_type(s, :N)", false),
        ("size(s) = :12", true),
        ("size(ss) = :2", true),
        ("size(m) = :1", true),
        ("size(n) = :1", false),
        ("m.deep[1].#end = :end", true),
        ("m.deep[0] = :1", true),
        ("s = :5", false),
        ("s <> :5", true),
        ("s > :5", false),
        ("flag = :t", true),
        ("attribute_exists(nothing)", true),
        ("n = :4 OR n = :5 AND s <> :5", true),
        ("(n = :4 OR n = :5) AND s = :5", false),
        ("NOT (n = :4) AND NOT n = :6", true),
        ("n = :4 or not n = :5", false),
        ("n = m.deep[0]", false),
    ] {
        let used = |sign: &str, given: &Json| -> Json {
            given
                .as_object()
                .unwrap()
                .iter()
                .filter(|(key, _)| {
                    condition.split(|c: char| !c.is_alphanumeric() && c != ':' && c != '#').any(|w| w == *key)
                })
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect::<serde_json::Map<_, _>>()
                .into_iter()
                .filter(|(key, _)| key.starts_with(sign))
                .collect::<serde_json::Map<_, _>>()
                .into()
        };
        let mut body =
            json!({ "TableName": TABLE, "Key": { "leaseKey": { "S": "a" } }, "ConditionExpression": condition });
        let (names, values) = (used("#", &json!({ "#end": "end" })), used(":", &values));
        if names != json!({}) {
            body["ExpressionAttributeNames"] = names;
        }
        if values != json!({}) {
            body["ExpressionAttributeValues"] = values;
        }
        let (status, answer) = call(&model, "UpdateItem", &body);
        assert!(
            status == 200 || answer["__type"].as_str().unwrap().ends_with("#ConditionalCheckFailedException"),
            "{condition}: {answer}"
        );
        assert_eq!(status == 200, holds, "{condition}");
        // A filter has the same meaning.
        let expression = body.as_object_mut().unwrap().remove("ConditionExpression").unwrap();
        body.as_object_mut().unwrap().remove("Key");
        body["FilterExpression"] = expression;
        assert_eq!(good(&model, "Scan", &body)["Count"] == 1, holds, "{condition}");
    }
}

#[test]
fn expressions_that_aws_refuses_are_refused_with_its_messages() {
    let (model, _) = with_table();
    let one = json!({ ":v": { "N": "1" } });
    for (condition, names, values, message) in [
        (
            "n = :w",
            json!(null),
            one.clone(),
            "Invalid ConditionExpression: An expression attribute value used in expression is not defined; attribute value: :w",
        ),
        (
            "#n = :v",
            json!({ "#m": "n" }),
            one.clone(),
            "Invalid ConditionExpression: An expression attribute name used in the document path is not defined; attribute name: #n",
        ),
        (
            "n = :v",
            json!({ "#m": "n" }),
            one.clone(),
            "Value provided in ExpressionAttributeNames unused in expressions: keys: {#m}",
        ),
        (
            "attribute_exists(n)",
            json!(null),
            one.clone(),
            "Value provided in ExpressionAttributeValues unused in expressions: keys: {:v}",
        ),
        (
            "owner = :v",
            json!(null),
            one.clone(),
            "Invalid ConditionExpression: Attribute name is a reserved keyword; reserved keyword: owner",
        ),
        (
            "n == :v",
            json!(null),
            one.clone(),
            "Invalid ConditionExpression: Syntax error; token: \"=\", near: \"== :v\"",
        ),
        (
            "n = :v AND",
            json!(null),
            one.clone(),
            "Invalid ConditionExpression: Syntax error; token: \"<EOF>\", near: \"AND\"",
        ),
        ("n", json!(null), json!(null), "Invalid ConditionExpression: Syntax error; token: \"<EOF>\", near: \"n\""),
        ("", json!(null), json!(null), "Invalid ConditionExpression: The expression can not be empty;"),
        ("exists(n)", json!(null), json!(null), "Invalid ConditionExpression: Invalid function name; function: exists"),
        (
            "size(n) < :v",
            json!(null),
            json!({ ":v": { "BOOL": true } }),
            "Invalid ConditionExpression: Incorrect operand type for operator or function; operator or function: <, operand type: BOOL",
        ),
        (
            "begins_with(n, :v)",
            json!(null),
            one.clone(),
            "Invalid ConditionExpression: Incorrect operand type for operator or function; operator or function: begins_with, operand type: N",
        ),
        (
            "((n = :v))",
            json!(null),
            one.clone(),
            "Invalid ConditionExpression: The expression has redundant parentheses;",
        ),
        (
            "n = n",
            json!(null),
            json!(null),
            "Invalid ConditionExpression: The first operand must be distinct from the remaining operands for this operator or function; operator: =, first operand: [n]",
        ),
        (
            "n = :v",
            json!(null),
            json!({ ":v": { "N": "one" } }),
            "ExpressionAttributeValues contains invalid value: The parameter cannot be converted to a numeric value: one for key :v",
        ),
        ("n = :v", json!(null), json!({}), "ExpressionAttributeValues must not be empty"),
    ] {
        let mut body =
            json!({ "TableName": TABLE, "Item": { "leaseKey": { "S": "a" } }, "ConditionExpression": condition });
        if !names.is_null() {
            body["ExpressionAttributeNames"] = names;
        }
        if !values.is_null() {
            body["ExpressionAttributeValues"] = values;
        }
        assert_eq!(
            bad(&model, "PutItem", &body),
            ("ValidationException".to_owned(), message.to_owned()),
            "{condition}"
        );
    }
    let body = json!({ "TableName": TABLE, "Item": { "leaseKey": { "S": "a" } }, "ExpressionAttributeValues": one });
    assert!(
        bad(&model, "PutItem", &body)
            .1
            .starts_with("ExpressionAttributeValues can only be specified when using expressions")
    );
    assert!(model.items(TABLE).is_empty(), "nothing refused is stored");
}

#[test]
fn updates_use_the_item_as_it_was_before() {
    let (model, _) = with_table();
    put(
        &model,
        &json!({ "leaseKey": { "S": "a" }, "x": { "N": "1" }, "y": { "N": "10" }, "l": { "L": [{ "S": "0" }, { "S": "1" }, { "S": "2" }] },
                        "ss": { "SS": ["p", "q"] }, "m": { "M": { "k": { "S": "v" } } } }),
    );
    let answer = good(
        &model,
        "UpdateItem",
        &json!({
            "TableName": TABLE, "Key": { "leaseKey": { "S": "a" } }, "ReturnValues": "ALL_NEW",
            "UpdateExpression": "SET x = y + :1, y = x - :1, z = if_not_exists(z, :1), #l = list_append(#l, :more), m.j = :1 \
                                 REMOVE m.k ADD n :1, ns :ns DELETE ss :p",
            "ExpressionAttributeNames": { "#l": "l" },
            "ExpressionAttributeValues": { ":1": { "N": "1" }, ":more": { "L": [{ "S": "3" }] }, ":ns": { "NS": ["7"] }, ":p": { "SS": ["p"] } },
        }),
    );
    let after = json!({ "leaseKey": { "S": "a" }, "x": { "N": "11" }, "y": { "N": "0" }, "z": { "N": "1" }, "n": { "N": "1" },
                        "l": { "L": [{ "S": "0" }, { "S": "1" }, { "S": "2" }, { "S": "3" }] }, "ns": { "NS": ["7"] },
                        "ss": { "SS": ["q"] }, "m": { "M": { "j": { "N": "1" } } } });
    assert_eq!(answer["Attributes"], after);
    assert_eq!(item(&model, "a"), after);
    // Lists: elements are removed by their old indexes; a set that loses its last element is removed.
    let answer = good(
        &model,
        "UpdateItem",
        &json!({
            "TableName": TABLE, "Key": { "leaseKey": { "S": "a" } }, "ReturnValues": "UPDATED_NEW",
            "UpdateExpression": "REMOVE #l[0], #l[2] DELETE ss :q SET x = :1",
            "ExpressionAttributeNames": { "#l": "l" }, "ExpressionAttributeValues": { ":q": { "SS": ["q"] }, ":1": { "N": "-0.50" } },
        }),
    );
    assert_eq!(answer["Attributes"]["x"], json!({ "N": "-0.5" }));
    assert_eq!(item(&model, "a")["l"], json!({ "L": [{ "S": "1" }, { "S": "3" }] }));
    assert_eq!(item(&model, "a").get("ss"), None);
    let answer = good(
        &model,
        "UpdateItem",
        &json!({
        "TableName": TABLE, "Key": { "leaseKey": { "S": "new" } }, "ReturnValues": "UPDATED_OLD",
        "UpdateExpression": "SET x = :1", "ExpressionAttributeValues": { ":1": { "N": "1" } } }),
    );
    assert_eq!(answer, json!({}));
    assert_eq!(item(&model, "new"), json!({ "leaseKey": { "S": "new" }, "x": { "N": "1" } }));
}

#[test]
fn updates_that_do_not_fit_are_refused() {
    let (model, _) = with_table();
    put(&model, &rich());
    for (update, value, message) in [
        (
            "SET leaseKey = :v",
            json!({ "S": "b" }),
            "One or more parameter values were invalid: Cannot update attribute leaseKey. This attribute is part of the key",
        ),
        (
            "SET x = absent",
            json!(null),
            "The provided expression refers to an attribute that does not exist in the item",
        ),
        ("SET x = s + :v", json!({ "N": "1" }), "An operand in the update expression has an incorrect data type"),
        (
            "SET x = n + :v",
            json!({ "S": "1" }),
            "Invalid UpdateExpression: Incorrect operand type for operator or function; operator or function: +, operand type: STRING",
        ),
        ("ADD s :v", json!({ "N": "1" }), "An operand in the update expression has an incorrect data type"),
        (
            "ADD s :v",
            json!({ "S": "1" }),
            "Invalid UpdateExpression: Incorrect operand type for operator or function; operator: ADD, operand type: STRING",
        ),
        (
            "SET absent.x = :v",
            json!({ "N": "1" }),
            "The document path provided in the update expression is invalid for update",
        ),
        (
            "SET n = :v, n = :v",
            json!({ "N": "1" }),
            "Invalid UpdateExpression: Two document paths overlap with each other; must remove or rewrite one of these paths; path one: [n], path two: [n]",
        ),
        (
            "SET m.a = :v REMOVE m",
            json!({ "N": "1" }),
            "Invalid UpdateExpression: Two document paths overlap with each other; must remove or rewrite one of these paths; path one: [m, a], path two: [m]",
        ),
        (
            "SET n = :v SET s = :v",
            json!({ "N": "1" }),
            "Invalid UpdateExpression: The \"SET\" section can only be used once in an update expression;",
        ),
        (
            "SET leaseOwner = :v",
            json!({ "N": "1" }),
            "One or more parameter values were invalid: Type mismatch for Index Key leaseOwner Expected: S Actual: N IndexName: LeaseOwnerToLeaseKeyIndex",
        ),
        (
            "SET x = :v",
            json!({ "SS": [] }),
            "ExpressionAttributeValues contains invalid value: One or more parameter values were invalid: An string set  may not be empty for key :v",
        ),
        ("ADD n :v", json!({ "N": "1e37" }), ""),
    ] {
        let mut body = json!({ "TableName": TABLE, "Key": { "leaseKey": { "S": "a" } }, "UpdateExpression": update });
        if !value.is_null() {
            body["ExpressionAttributeValues"] = json!({ ":v": value });
        }
        if message.is_empty() {
            good(&model, "UpdateItem", &body);
            assert_eq!(item(&model, "a")["n"], json!({ "N": "10000000000000000000000000000000000005" }));
        } else {
            assert_eq!(
                bad(&model, "UpdateItem", &body),
                ("ValidationException".to_owned(), message.to_owned()),
                "{update}"
            );
            assert_eq!(item(&model, "a"), rich());
        }
    }
    let large = "x".repeat(400 * 1024);
    let body = json!({ "TableName": TABLE, "Item": { "leaseKey": { "S": "a" }, "x": { "S": large } } });
    assert_eq!(bad(&model, "PutItem", &body).1, "Item size has exceeded the maximum allowed size");
    let body = json!({ "TableName": TABLE, "Key": { "leaseKey": { "S": "a" } }, "UpdateExpression": "SET x = :v",
                       "ExpressionAttributeValues": { ":v": { "S": large } } });
    assert_eq!(bad(&model, "UpdateItem", &body).1, "Item size to update has exceeded the maximum allowed size");
}

#[test]
fn keys_are_checked() {
    let (model, _) = with_table();
    for (key, message) in [
        (json!({}), "The provided key element does not match the schema"),
        (json!({ "leaseKey": { "N": "1" } }), "The provided key element does not match the schema"),
        (
            json!({ "leaseKey": { "S": "a" }, "more": { "S": "a" } }),
            "The provided key element does not match the schema",
        ),
        (
            json!({ "leaseKey": { "S": "" } }),
            "One or more parameter values are not valid. The AttributeValue for a key attribute cannot contain an empty string value. Key: leaseKey",
        ),
        (
            json!({ "leaseKey": { "S": "k".repeat(2049) } }),
            "One or more parameter values were invalid: Size of hashkey has exceeded the maximum size limit of2048 bytes",
        ),
        (
            json!({ "leaseKey": { "S": "a", "N": "1" } }),
            "Supplied AttributeValue has more than one datatypes set, must contain exactly one of the supported datatypes",
        ),
        (
            json!({ "leaseKey": {} }),
            "Supplied AttributeValue is empty, must contain exactly one of the supported datatypes",
        ),
    ] {
        assert_eq!(bad(&model, "GetItem", &json!({ "TableName": TABLE, "Key": key })).1, message);
    }
    for (item, message) in [
        (
            json!({ "x": { "S": "a" } }),
            "One or more parameter values were invalid: Missing the key leaseKey in the item",
        ),
        (
            json!({ "leaseKey": { "B": "AA==" } }),
            "One or more parameter values were invalid: Type mismatch for key leaseKey expected: S actual: B",
        ),
        (
            json!({ "leaseKey": { "S": "a" }, "s": { "SS": ["x", "x"] } }),
            "One or more parameter values were invalid: Input collection contains duplicates.",
        ),
    ] {
        assert_eq!(bad(&model, "PutItem", &json!({ "TableName": TABLE, "Item": item })).1, message);
    }
    assert_eq!(
        bad(&model, "GetItem", &json!({ "TableName": "missing", "Key": { "leaseKey": { "S": "a" } } })),
        ("ResourceNotFoundException".to_owned(), "Requested resource not found".to_owned())
    );
    assert_eq!(bad(&model, "NoSuchOperation", &json!({})).0, "UnknownOperationException");
}

#[test]
fn a_scan_in_pages_or_segments_sees_every_item_once() {
    let (model, _) = with_table();
    let all: BTreeSet<String> = (0..57).map(|n| format!("shardId-{n:012}")).collect();
    for key in &all {
        put(&model, &json!({ "leaseKey": { "S": key }, "n": { "N": "1" } }));
    }
    let scan = |extra: Json| -> (Vec<String>, usize) {
        let (mut seen, mut pages, mut start) = (Vec::new(), 0, None);
        loop {
            let mut body = json!({ "TableName": TABLE });
            body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            if let Some(start) = start {
                body["ExclusiveStartKey"] = start;
            }
            let page = good(&model, "Scan", &body);
            pages += 1;
            seen.extend(
                page["Items"].as_array().unwrap().iter().map(|item| item["leaseKey"]["S"].as_str().unwrap().to_owned()),
            );
            start = page.get("LastEvaluatedKey").cloned();
            if start.is_none() {
                return (seen, pages);
            }
        }
    };
    let (seen, pages) = scan(json!({ "Limit": 10 }));
    assert_eq!((seen.len(), pages), (57, 6));
    assert_eq!(seen.iter().cloned().collect::<BTreeSet<_>>(), all);
    assert_ne!(seen, all.iter().cloned().collect::<Vec<_>>(), "a scan is not in the order of keys");
    // A page that ends at the last item names its end; the next one is empty.
    assert_eq!(scan(json!({ "Limit": 57 })).1, 2);
    let mut parts = Vec::new();
    for segment in 0..4 {
        let (seen, _) = scan(json!({ "Segment": segment, "TotalSegments": 4, "Limit": 3 }));
        assert!(!seen.is_empty());
        parts.extend(seen);
    }
    parts.sort();
    assert_eq!(parts, all.into_iter().collect::<Vec<_>>());
    // Large items: a page ends after 1 MB.
    for n in 0..5 {
        put(&model, &json!({ "leaseKey": { "S": format!("large-{n}") }, "x": { "S": "x".repeat(390 * 1024) } }));
    }
    assert!(scan(json!({})).1 > 1);
    assert!(
        bad(&model, "Scan", &json!({ "TableName": TABLE, "Segment": 4, "TotalSegments": 4 }))
            .1
            .starts_with("The Segment parameter is zero-based")
    );
    let counted = good(
        &model,
        "Scan",
        &json!({ "TableName": TABLE, "Select": "COUNT", "FilterExpression": "attribute_exists(n)" }),
    );
    assert_eq!(counted.get("Items"), None);
}

#[test]
fn a_query_reads_one_partition_in_order() {
    let (model, _) = model();
    good(
        &model,
        "CreateTable",
        &json!({
        "TableName": "events", "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [{ "AttributeName": "id", "AttributeType": "S" }, { "AttributeName": "at", "AttributeType": "N" }],
        "KeySchema": [{ "AttributeName": "id", "KeyType": "HASH" }, { "AttributeName": "at", "KeyType": "RANGE" }] }),
    );
    for at in [-5, 0, 2, 10, 9] {
        good(
            &model,
            "PutItem",
            &json!({ "TableName": "events", "Item": { "id": { "S": "a" }, "at": { "N": at.to_string() }, "odd": { "BOOL": at % 2 != 0 } } }),
        );
    }
    good(&model, "PutItem", &json!({ "TableName": "events", "Item": { "id": { "S": "b" }, "at": { "N": "1" } } }));
    let query = |condition: &str, extra: Json| -> Vec<i64> {
        let mut body = json!({ "TableName": "events", "KeyConditionExpression": condition, "ExpressionAttributeNames": { "#at": "at" },
                               "ExpressionAttributeValues": { ":a": { "S": "a" }, ":0": { "N": "0" }, ":9": { "N": "9" } } });
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let page = good(&model, "Query", &body);
        page["Items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["at"]["N"].as_str().unwrap().parse().unwrap())
            .collect()
    };
    assert_eq!(query("id = :a AND #at BETWEEN :0 AND :9", json!({})), [0, 2, 9]);
    let only = |value: &str| json!({ "ExpressionAttributeValues": { ":a": { "S": "a" }, ":v": { "N": value } } });
    assert_eq!(query("id = :a AND #at > :v", only("0")), [2, 9, 10]);
    assert_eq!(query("#at <= :v and id = :a", only("2")), [-5, 0, 2]);
    let mut reverse = only("0");
    reverse["ScanIndexForward"] = json!(false);
    reverse["Limit"] = json!(2);
    assert_eq!(query("id = :a AND #at >= :v", reverse.clone()), [10, 9]);
    reverse["ExclusiveStartKey"] = json!({ "id": { "S": "a" }, "at": { "N": "9" } });
    assert_eq!(query("id = :a AND #at >= :v", reverse), [2, 0]);
    for (condition, message) in [
        ("#at = :v", "Query condition missed key schema element: id"),
        ("id = :a OR #at = :v", "Query key condition not supported"),
        ("id > :a AND #at = :v", "Query key condition not supported"),
        (
            "id = :v AND #at = :v",
            "One or more parameter values were invalid: Condition parameter type does not match schema type",
        ),
    ] {
        let mut values = json!({ ":v": { "N": "1" } });
        if condition.contains(":a") {
            values[":a"] = json!({ "S": "a" });
        }
        let body = json!({ "TableName": "events", "KeyConditionExpression": condition, "ExpressionAttributeValues": values,
                           "ExpressionAttributeNames": { "#at": "at" } });
        assert_eq!(bad(&model, "Query", &body).1, message);
    }
}

#[test]
fn batches_process_what_they_can_and_return_the_rest() {
    let (model, _) = with_table();
    let puts: Vec<Json> =
        (0..25).map(|n| json!({ "PutRequest": { "Item": { "leaseKey": { "S": n.to_string() } } } })).collect();
    assert_eq!(
        good(&model, "BatchWriteItem", &json!({ "RequestItems": { TABLE: puts } })),
        json!({ "UnprocessedItems": {} })
    );
    let mut many = puts.clone();
    many.push(json!({ "DeleteRequest": { "Key": { "leaseKey": { "S": "more" } } } }));
    assert_eq!(
        bad(&model, "BatchWriteItem", &json!({ "RequestItems": { TABLE: many } })).1,
        "Too many items requested for the BatchWriteItem call"
    );
    model.set_batch_max(Some(2));
    let deletes: Vec<Json> =
        (0..5).map(|n| json!({ "DeleteRequest": { "Key": { "leaseKey": { "S": n.to_string() } } } })).collect();
    let answer = good(&model, "BatchWriteItem", &json!({ "RequestItems": { TABLE: deletes } }));
    assert_eq!(answer["UnprocessedItems"][TABLE], json!(deletes[2..]));
    assert_eq!(model.items(TABLE).len(), 23);
    let keys: Vec<Json> = (3..7).map(|n| json!({ "leaseKey": { "S": n.to_string() } })).collect();
    let answer =
        good(&model, "BatchGetItem", &json!({ "RequestItems": { TABLE: { "Keys": keys, "ConsistentRead": true } } }));
    assert_eq!(answer["Responses"][TABLE].as_array().unwrap().len(), 2);
    assert_eq!(answer["UnprocessedKeys"][TABLE], json!({ "Keys": keys[2..], "ConsistentRead": true }));
    let twice = json!({ "RequestItems": { TABLE: { "Keys": [keys[0], keys[0]] } } });
    assert_eq!(bad(&model, "BatchGetItem", &twice).1, "Provided list of item keys contains duplicates");
}

#[test]
fn projections_and_capacity_are_as_documented() {
    let (model, _) = with_table();
    put(&model, &rich());
    let answer = good(
        &model,
        "GetItem",
        &json!({ "TableName": TABLE, "Key": { "leaseKey": { "S": "a" } }, "ProjectionExpression": "n, m.deep[1].#e, absent",
                                                  "ExpressionAttributeNames": { "#e": "end" }, "ReturnConsumedCapacity": "TOTAL" }),
    );
    assert_eq!(
        answer["Item"],
        json!({ "n": { "N": "5" }, "m": { "M": { "deep": { "L": [{ "M": { "end": { "S": "here" } } }] } } } })
    );
    assert_eq!(answer["ConsumedCapacity"], json!({ "TableName": TABLE, "CapacityUnits": 0.5 }));
    let answer = good(
        &model,
        "GetItem",
        &json!({ "TableName": TABLE, "Key": { "leaseKey": { "S": "a" } }, "AttributesToGet": ["s"] }),
    );
    assert_eq!(answer["Item"], json!({ "s": { "S": "shardId-0001" } }));
    let both = json!({ "TableName": TABLE, "Key": { "leaseKey": { "S": "a" } }, "AttributesToGet": ["s"], "ProjectionExpression": "s" });
    assert!(bad(&model, "GetItem", &both).1.starts_with("Can not use both expression and non-expression parameters"));
    let written = good(
        &model,
        "TransactWriteItems",
        &json!({ "ReturnConsumedCapacity": "TOTAL", "TransactItems": [
        { "Put": { "TableName": TABLE, "Item": { "leaseKey": { "S": "z" }, "x": { "S": "x".repeat(1500) } } } }] }),
    );
    assert_eq!(written["ConsumedCapacity"][0]["CapacityUnits"], json!(4.0));
}

#[test]
fn creating_tables_and_indexes_takes_the_configured_time() {
    let (model, clock) = model();
    model.set_creation_ms(5_000);
    let create = json!({ "TableName": TABLE, "BillingMode": "PAY_PER_REQUEST", "KeySchema": [{ "AttributeName": "leaseKey", "KeyType": "HASH" }],
                         "AttributeDefinitions": [{ "AttributeName": "leaseKey", "AttributeType": "S" }] });
    assert_eq!(bad(&model, "DescribeTable", &json!({ "TableName": TABLE })).0, "ResourceNotFoundException");
    assert_eq!(good(&model, "CreateTable", &create)["TableDescription"]["TableStatus"], "CREATING");
    assert_eq!(bad(&model, "CreateTable", &create).0, "ResourceInUseException");
    let row = json!({ "TableName": TABLE, "Item": { "leaseKey": { "S": "a" }, "leaseOwner": { "S": "w" } } });
    assert_eq!(bad(&model, "PutItem", &row).0, "ResourceNotFoundException");
    clock.fetch_add(5_000, Ordering::Relaxed);
    assert_eq!(good(&model, "DescribeTable", &json!({ "TableName": TABLE }))["Table"]["TableStatus"], "ACTIVE");
    good(&model, "PutItem", &row);
    let update = json!({ "TableName": TABLE, "AttributeDefinitions": [{ "AttributeName": "leaseOwner", "AttributeType": "S" }, { "AttributeName": "leaseKey", "AttributeType": "S" }],
        "GlobalSecondaryIndexUpdates": [{ "Create": { "IndexName": "i", "Projection": { "ProjectionType": "KEYS_ONLY" },
            "KeySchema": [{ "AttributeName": "leaseOwner", "KeyType": "HASH" }, { "AttributeName": "leaseKey", "KeyType": "RANGE" }] } }] });
    let message = good(&model, "UpdateTable", &update);
    assert_eq!(message["TableDescription"]["GlobalSecondaryIndexes"][0]["IndexStatus"], "CREATING");
    assert_eq!(bad(&model, "UpdateTable", &update).0, "ResourceInUseException");
    let query = json!({ "TableName": TABLE, "IndexName": "i", "KeyConditionExpression": "leaseOwner = :w", "ExpressionAttributeValues": { ":w": { "S": "w" } } });
    assert_eq!(bad(&model, "Query", &query).0, "ValidationException");
    clock.fetch_add(5_000, Ordering::Relaxed);
    assert_eq!(good(&model, "Query", &query)["Count"], 1);
    assert_eq!(bad(&model, "UpdateTable", &update).1, "Attempting to create an index which already exists");
    good(&model, "DeleteTable", &json!({ "TableName": TABLE }));
    assert_eq!(good(&model, "ListTables", &json!({}))["TableNames"], json!([]));
}
