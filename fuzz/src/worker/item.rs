//! Items of the DynamoDB table, as the KCL, another version or a person may have left them.

use std::collections::BTreeMap;

use aws_model::dynamodb::expression::{Kind, Placeholders, evaluate, parse, update};
use aws_model::dynamodb::number::Number;
use aws_model::dynamodb::value::{Item as Stored, Value};
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use checkpoints::fuzzing::{Item, ItemTable, ItemWrite, item_writes};
use checkpoints::{Lease, LeaseOwner, StreamIds, StreamName, ThroughputKbps};
use serde_json::{Map, json};

use super::{assert_names, assert_sane, hash};

/// The attributes of Shardlake and of the KCL, each with a letter.
const ATTRIBUTES: [(u8, &str); 20] = [
    (b'k', "leaseKey"),
    (b's', "shardlakeStream"),
    (b'n', "streamName"),
    (b'i', "shardId"),
    (b'e', "entityType"),
    (b'o', "leaseOwner"),
    (b'c', "checkpointOwner"),
    (b'l', "leaseCounter"),
    (b'p', "checkpoint"),
    (b'q', "checkpointSubSequenceNumber"),
    (b'P', "pendingCheckpoint"),
    (b'Q', "pendingCheckpointSubSequenceNumber"),
    (b'S', "pendingCheckpointState"),
    (b'm', "lastManifest"),
    (b'w', "ownerSwitchesSinceCheckpoint"),
    (b't', "throughputKBps"),
    (b'r', "parentShardId"),
    (b'h', "childShardIds"),
    (b'a', "startingHashKey"),
    (b'z', "endingHashKey"),
];
/// Attributes that Shardlake never writes: the key, and what the KCL stores about the shard.
const UNTOUCHED: [&str; 7] =
    ["leaseKey", "streamName", "shardId", "entityType", "parentShardId", "startingHashKey", "endingHashKey"];

/// The maximal throughput that Shardlake writes.
const THROUGHPUT_MAX: f64 = 1e125;

/// Items of a table, one in each paragraph. The first byte of the input has flags: bit 0, `orders` is the only stream; bit 1, the
/// stream has an id; bit 2, the writer is another worker than the holder.
///
/// A line of a paragraph has three parts:
///
/// - the letter of an attribute ([`ATTRIBUTES`]; any other letter is an attribute of another program);
/// - a letter of the type: `S`, `N`, `B`, `T` and `U` for sets of texts and numbers, `1`, `0`, `Z` for null, `L` and `M`;
/// - the value.
pub fn item(data: &[u8]) {
    let Some((flags, text)) = data.split_first() else { return };
    let items: Vec<Stored> = paragraphs(text).into_iter().map(stored).collect();
    let orders = StreamName::new("orders").expect("a name");
    let id = "000000000000:orders:1736764200".to_owned();
    let ids = (flags & 2 != 0).then(|| (orders.clone(), id)).into_iter().collect();
    let streams = StreamIds { ids, bare: (flags & 1 != 0).then_some(orders) };
    let converted: Vec<Item> = items.iter().map(item_of_sdk).collect();
    let table = match ItemTable::open(streams, &converted) {
        Ok(table) => table,
        Err(error) => {
            let keys: Vec<&str> = items.iter().map(lease_key).chain(["lease table"]).collect();
            return assert_names(&error, &keys);
        }
    };
    for (stored, item) in items.iter().zip(&converted) {
        match table.decode(item) {
            Ok(None) => {}
            Ok(Some(lease)) => accepted(&table, stored, &lease, data),
            Err(error) => {
                let get = |name| match stored.get(name) {
                    Some(Value::S(text)) => text.as_str(),
                    _ => "",
                };
                let shard =
                    get("leaseKey").rsplit(':').next().unwrap_or_default().replace("%3A", ":").replace("%25", "%");
                assert_names(&error, &[lease_key(stored), &format!("lease of shard {shard} of stream ")]);
            }
        }
    }
}

/// A lease that was read: Shardlake can write it, and every write keeps the attributes of other programs.
fn accepted(table: &ItemTable, stored: &Stored, lease: &Lease, data: &[u8]) {
    assert_sane(lease);
    if let Ok(item) = table.encode(lease)
        && let Some(again) = table.decode(&item).expect("an encoded lease can be decoded")
    {
        // An impossible throughput is reduced. It is used only to share out work.
        let cut = lease.throughput.get() > THROUGHPUT_MAX;
        let throughput = if cut { ThroughputKbps::new(THROUGHPUT_MAX) } else { lease.throughput };
        assert_eq!(again, Lease { throughput, ..lease.clone() });
    }
    let last = i64::MAX.unsigned_abs();
    if lease.counter == last || lease.owner_switches_since_checkpoint == last {
        return;
    }
    let me = LeaseOwner::new("me").expect("a name");
    let me = lease.holder.committer().filter(|_| data[0] & 4 == 0).unwrap_or(&me);
    let writes = item_writes(lease, me).expect("the counters fit into a row");
    // Each takes as long as all the rest, so most inputs check only one of them.
    let chosen = hash(data);
    let all = chosen.is_multiple_of(16);
    for (_, write) in (0..).zip(&writes).filter(|(number, _)| all || chosen % writes.len() as u64 == *number) {
        written(table, stored, write);
    }
}

/// Compares a write, carried out by the model of DynamoDB, with the rules of the other stores.
fn written(table: &ItemTable, before: &Stored, write: &ItemWrite) {
    let values: Map<String, serde_json::Value> =
        write.values.iter().map(|(name, value)| (name.clone(), value_of_sdk(value).to_json())).collect();
    let request = json!({ "ConditionExpression": write.condition, "ExpressionAttributeValues": values });
    let request = request.as_object().expect("it is an object");
    let mut placeholders = Placeholders::of(request, &[Kind::Condition]).expect("the values are valid in DynamoDB");
    let condition = parse::condition(Kind::Condition, &write.condition, &mut placeholders).expect("a condition");
    let call = write.call;
    let holds = evaluate::holds(&condition, before);
    assert_eq!(holds, write.expected.is_some(), "{call} by {} on {before:?}", write.condition);
    let Some(expected) = write.expected.as_ref().filter(|_| !write.update.is_empty()) else { return };
    let changes = parse::update(&write.update, &mut placeholders).expect("an update");
    let after = update::apply(&changes, before).expect("the update fits the row");
    let lease = table.decode(&item_of_sdk(&after)).expect("a written row can be decoded");
    assert_eq!(lease.as_ref(), Some(expected), "{call}: {}", write.update);
    let written: Vec<&str> =
        ATTRIBUTES.iter().map(|(_, name)| *name).filter(|name| !UNTOUCHED.contains(name)).collect();
    let of_others = |item: &Stored| -> BTreeMap<String, Value> {
        let kept = item.iter().filter(|(name, _)| !written.contains(&name.as_str()));
        kept.map(|(name, value)| (name.clone(), value.clone())).collect()
    };
    assert_eq!(of_others(&after), of_others(before), "{call} changed attributes of other programs");
}

fn lease_key(item: &Stored) -> &str {
    match item.get("leaseKey") {
        Some(Value::S(key)) => key,
        _ => "lease under key ",
    }
}

/// At most eight paragraphs, without the empty ones.
fn paragraphs(text: &[u8]) -> Vec<Vec<&[u8]>> {
    let lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
    lines.split(|line| line.is_empty()).filter(|lines| !lines.is_empty()).take(8).map(<[_]>::to_vec).collect()
}

/// The item that a paragraph tells, with such values only as DynamoDB keeps.
fn stored(lines: Vec<&[u8]>) -> Stored {
    let mut item = Stored::new();
    for line in lines {
        let [letter, kind, value @ ..] = line else { continue };
        let known = ATTRIBUTES.iter().find(|(known, _)| known == letter);
        let name = known.map_or_else(|| format!("x{letter}"), |(_, name)| (*name).to_owned());
        let text = String::from_utf8_lossy(value);
        let parts = || text.split(',').map(str::to_owned);
        let numbers = || parts().map(|text| Number::parse(&text)).collect::<Result<_, _>>();
        let value = match kind {
            b'S' => Some(Value::S(text.into_owned())),
            b'N' => Number::parse(&text).ok().map(Value::N),
            b'B' => Some(Value::B(value.to_vec())),
            b'T' => Some(Value::Ss(parts().collect())),
            b'U' => numbers().ok().map(Value::Ns),
            b'1' | b'0' => Some(Value::Bool(*kind == b'1')),
            b'Z' => Some(Value::Null),
            b'L' => Some(Value::L(parts().map(Value::S).collect())),
            b'M' => Some(Value::M(parts().map(|part| (part.clone(), Value::S(part))).collect())),
            _ => None,
        };
        item.extend(value.map(|value| (name, value)));
    }
    item
}

fn item_of_sdk(item: &Stored) -> Item {
    item.iter().map(|(name, value)| (name.clone(), sdk(value))).collect()
}

/// A value in the type of the SDK.
fn sdk(value: &Value) -> AttributeValue {
    match value {
        Value::S(text) => AttributeValue::S(text.clone()),
        Value::N(number) => AttributeValue::N(number.to_string()),
        Value::B(bytes) => AttributeValue::B(Blob::new(bytes.clone())),
        Value::Bool(value) => AttributeValue::Bool(*value),
        Value::Null => AttributeValue::Null(true),
        Value::M(map) => AttributeValue::M(item_of_sdk(map)),
        Value::L(list) => AttributeValue::L(list.iter().map(sdk).collect()),
        Value::Ss(texts) => AttributeValue::Ss(texts.iter().cloned().collect()),
        Value::Ns(numbers) => AttributeValue::Ns(numbers.iter().map(ToString::to_string).collect()),
        Value::Bs(set) => AttributeValue::Bs(set.iter().cloned().map(Blob::new).collect()),
    }
}

/// A value of a write, in the type of the model.
fn value_of_sdk(value: &AttributeValue) -> Value {
    match value {
        AttributeValue::S(text) => Value::S(text.clone()),
        AttributeValue::N(number) => Value::N(Number::parse(number).expect("a valid number of DynamoDB")),
        AttributeValue::B(bytes) => Value::B(bytes.as_ref().to_vec()),
        AttributeValue::Ss(texts) => Value::Ss(texts.iter().cloned().collect()),
        other => panic!("a write has {other:?}"),
    }
}
