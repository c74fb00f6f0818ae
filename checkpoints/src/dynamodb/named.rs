//! Named checkpoints in DynamoDB: one item each, in a second table.
//!
//! They are not beside the leases, because a KCL before 3.5 takes every item of its table for a lease. The second table is
//! called as the first with `-Checkpoints` behind it, is made at the first save, and counts as empty until then.
//!
//! An item has `checkpointName` (S, the key), `atMs` and `shards` (N), and `positions` (S), the JSON of `named.rs`.
//!
//! A lost reply must not read as a refusal, so saving and deleting are tried once, and the caller is told if it is not known
//! what became of them. Limits: an item has at most 400 KB, which is about 3,000 shards of Kinesis.

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::delete_item::DeleteItemError;
use aws_sdk_dynamodb::operation::get_item::GetItemError;
use aws_sdk_dynamodb::operation::scan::ScanError;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValue};

use super::errors::Request;
use super::item::{Item, get_number, get_text, text};
use super::one_attempt;
use super::tables::{self, CHECKPOINT_NAME, Kind};
use crate::error::StoreError;
use crate::named::{CheckpointName, NamedCheckpoint, NamedCheckpointSummary, decode_positions, encode_positions};

const AT_MS: &str = "atMs";
const SHARDS: &str = "shards";
const POSITIONS: &str = "positions";

/// The most bytes of an item, names and values together.
const ITEM_BYTES_MAX: usize = 400 * 1_024;
/// What names and numbers take of it, generously.
const ITEM_BYTES_RESERVED: usize = 1_024;

/// The second table.
#[derive(Clone, Debug)]
pub(super) struct NamedCheckpoints {
    client: Client,
    table: String,
}

impl NamedCheckpoints {
    /// The table beside `leases`; asks nobody.
    pub(super) fn beside(client: Client, leases: &str) -> Self {
        Self { client, table: format!("{leases}-Checkpoints") }
    }

    pub(super) async fn save(&self, checkpoint: &NamedCheckpoint) -> Result<bool, StoreError> {
        let operation = format!("save checkpoint {}", checkpoint.name);
        let item = encode(checkpoint)?;
        if let Some(saved) = self.put(&operation, item.clone()).await? {
            return Ok(saved);
        }
        tables::make(&self.client, &self.table, Kind::NamedCheckpoints).await?;
        let vanished = || self.request(&operation, "dynamodb:PutItem").unavailable("the table vanished");
        self.put(&operation, item).await?.ok_or_else(vanished)
    }

    /// Whether the name was free; `None` if there is no table.
    async fn put(&self, operation: &str, item: Item) -> Result<Option<bool>, StoreError> {
        let put = self
            .client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(item))
            .condition_expression(format!("attribute_not_exists({CHECKPOINT_NAME})"));
        match put.customize().config_override(one_attempt()).send().await {
            Ok(_) => Ok(Some(true)),
            Err(error) => match error.as_service_error() {
                Some(refused) if refused.is_conditional_check_failed_exception() => Ok(Some(false)),
                Some(refused) if refused.is_resource_not_found_exception() => Ok(None),
                _ => Err(self.request(operation, "dynamodb:PutItem").explain(&error)),
            },
        }
    }

    pub(super) async fn list(&self) -> Result<Vec<NamedCheckpointSummary>, StoreError> {
        let mut summaries = Vec::new();
        let mut start = None;
        loop {
            let scan = self.client.scan().table_name(&self.table).consistent_read(true).set_exclusive_start_key(start);
            let scan = scan.projection_expression([CHECKPOINT_NAME, AT_MS, SHARDS].join(", "));
            let page = match scan.send().await {
                Ok(page) => page,
                Err(error) if error.as_service_error().is_some_and(ScanError::is_resource_not_found_exception) => {
                    return Ok(Vec::new());
                }
                Err(error) => return Err(self.request("list the named checkpoints", "dynamodb:Scan").explain(&error)),
            };
            for item in page.items() {
                summaries.push(decode_summary(item)?);
            }
            start = page.last_evaluated_key;
            if start.is_none() {
                summaries.sort_by(|one, other| one.name.cmp(&other.name));
                return Ok(summaries);
            }
        }
    }

    pub(super) async fn get(&self, name: &CheckpointName) -> Result<Option<NamedCheckpoint>, StoreError> {
        let get = self.client.get_item().table_name(&self.table).consistent_read(true);
        match get.key(CHECKPOINT_NAME, text(name.as_str())).send().await {
            Ok(found) => found.item().map(decode).transpose(),
            Err(error) if error.as_service_error().is_some_and(GetItemError::is_resource_not_found_exception) => {
                Ok(None)
            }
            Err(error) => Err(self.request(&format!("read checkpoint {name}"), "dynamodb:GetItem").explain(&error)),
        }
    }

    pub(super) async fn delete(&self, name: &CheckpointName) -> Result<bool, StoreError> {
        let delete = self.client.delete_item().table_name(&self.table).return_values(ReturnValue::AllOld);
        let delete = delete.key(CHECKPOINT_NAME, text(name.as_str())).customize().config_override(one_attempt());
        match delete.send().await {
            Ok(deleted) => Ok(deleted.attributes().is_some_and(|item| !item.is_empty())),
            Err(error) if error.as_service_error().is_some_and(DeleteItemError::is_resource_not_found_exception) => {
                Ok(false)
            }
            Err(error) => {
                Err(self.request(&format!("delete checkpoint {name}"), "dynamodb:DeleteItem").explain(&error))
            }
        }
    }

    fn request<'a>(&'a self, operation: &'a str, action: &'static str) -> Request<'a> {
        Request { operation, action, table: &self.table }
    }
}

fn encode(checkpoint: &NamedCheckpoint) -> Result<Item, StoreError> {
    let positions = encode_positions(&checkpoint.positions);
    let bytes_max = ITEM_BYTES_MAX - ITEM_BYTES_RESERVED;
    if positions.len() > bytes_max {
        return Err(StoreError::Invalid {
            operation: format!("save checkpoint {}", checkpoint.name),
            problem: format!(
                "the positions of its {} shards have {} bytes, DynamoDB takes at most {bytes_max}; save fewer streams \
                 under one name",
                checkpoint.positions.len(),
                positions.len()
            ),
        });
    }
    let attributes = [
        (CHECKPOINT_NAME, text(checkpoint.name.as_str())),
        (AT_MS, AttributeValue::N(checkpoint.at_ms.to_string())),
        (SHARDS, AttributeValue::N(checkpoint.positions.len().to_string())),
        (POSITIONS, text(positions)),
    ];
    Ok(attributes.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

fn decode(item: &Item) -> Result<NamedCheckpoint, StoreError> {
    let NamedCheckpointSummary { name, at_ms, .. } = decode_summary(item)?;
    let positions = get_text(item, POSITIONS)
        .and_then(|json| json.ok_or_else(|| format!("it has no {POSITIONS}")))
        .and_then(|json| decode_positions(&json).map_err(|error| error.to_string()))
        .map_err(|problem| malformed(name.as_str(), problem))?;
    Ok(NamedCheckpoint { name, at_ms, positions })
}

fn decode_summary(item: &Item) -> Result<NamedCheckpointSummary, StoreError> {
    let name = get_text(item, CHECKPOINT_NAME).ok().flatten().unwrap_or_default();
    let values = || {
        let missing = |what: &str| format!("it has no {what}");
        Ok(NamedCheckpointSummary {
            name: CheckpointName::new(&name).map_err(|error| error.to_string())?,
            at_ms: get_number(item, AT_MS)?.ok_or_else(|| missing(AT_MS))?,
            shards: get_number(item, SHARDS)?.ok_or_else(|| missing(SHARDS))?,
        })
    };
    values().map_err(|problem: String| malformed(&name, problem))
}

fn malformed(name: &str, problem: String) -> StoreError {
    StoreError::Malformed { item: format!("checkpoint {name}"), problem }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::arbitrary::{position, shard_key};

    proptest! {
        #[test]
        fn a_checkpoint_survives_being_stored(
            name in "[a-zA-Z0-9._-]{1,128}",
            at_ms in any::<u64>(),
            positions in vec((shard_key(), position()), 0..5),
        ) {
            let checkpoint = NamedCheckpoint { name: CheckpointName::new(name).unwrap(), at_ms, positions };
            let item = encode(&checkpoint).unwrap();
            prop_assert_eq!(decode(&item).unwrap(), checkpoint.clone());
            prop_assert_eq!(decode_summary(&item).unwrap(), checkpoint.summary());
        }
    }

    #[test]
    fn a_checkpoint_that_is_too_large_for_an_item_is_refused_with_the_numbers() {
        use crate::position::Position;
        use crate::shard::{ShardId, ShardKey, StreamName};

        let stream = StreamName::new("orders").unwrap();
        let shard = |number: u64| ShardKey::new(stream.clone(), ShardId::new(format!("shardId-{number:012}")).unwrap());
        let name = CheckpointName::new("large").unwrap();
        let of = |shards: u64| NamedCheckpoint {
            name: name.clone(),
            at_ms: 1,
            positions: (0..shards).map(|number| (shard(number), Position::Beginning)).collect(),
        };
        assert!(encode(&of(3_000)).is_ok());
        let error = encode(&of(10_000)).unwrap_err();
        assert!(matches!(error, StoreError::Invalid { .. }));
        assert!(
            error.to_string().starts_with("could not save checkpoint large: the positions of its 10000 shards have ")
        );
    }

    #[test]
    fn an_item_that_makes_no_sense_is_told_with_its_name() {
        let mut item =
            encode(&NamedCheckpoint { name: CheckpointName::new("spoiled").unwrap(), at_ms: 1, positions: Vec::new() })
                .unwrap();
        item.insert(POSITIONS.to_owned(), text("[{}]"));
        let error = decode(&item).unwrap_err();
        assert!(error.to_string().starts_with("the stored checkpoint spoiled makes no sense: "), "{error}");
        item.remove(AT_MS);
        assert!(decode_summary(&item).unwrap_err().to_string().ends_with("it has no atMs"));
    }
}
