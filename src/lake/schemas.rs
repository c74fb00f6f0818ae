//! The field ids of a lake's datasets, in `_schemas/<dataset>/<number>.json`.
//!
//! Owns: which of these objects counts, and how a worker adds fields to it. Does not own: which field gets which id, the
//! content of the objects (both: [`FieldIds`]), their keys ([`layout`]).
//!
//! Each object holds every field that the dataset has had so far, and the one with the highest number counts. A worker
//! reads it when it opens the lake. If the worker's definition has other fields, it writes the next number with
//! [`put_new`](ObjectStore::put_new), which never replaces an object. If another worker was faster, it reads that worker's
//! object and adds its fields to those. So each object contains the one before it, and all workers agree on every id,
//! whatever their definitions.
//!
//! | crash | leaves behind |
//! | --- | --- |
//! | before the write | nothing |
//! | after the write | ids of fields that no file has yet; the next worker with these fields uses them |
//!
//! An object that a listing does not show yet is found by the write, which it refuses. Objects are never deleted.

use bytes::Bytes;
use pipeline::dataset::{Datasets, FieldIds};
use pipeline::layout;

use crate::lake::{LakeError, ObjectKey, ObjectStore, Written};

/// The highest number: eight digits keep the keys in order.
const VERSION_MAX: u32 = 99_999_999;
/// How often a worker tries, each time because another one wrote the next number first.
const ATTEMPTS_MAX: u32 = 100;

/// Why the fields of a dataset have no ids.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// The lake cannot be read or written.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// The stored ids cannot be read.
    #[error("{key} cannot be read: {problem}; without it, columns would get ids that other columns have")]
    Unreadable {
        /// The object.
        key: ObjectKey,
        /// What is wrong with it.
        problem: String,
    },
    /// Others have changed the ids at every attempt.
    #[error(
        "the field ids of dataset '{dataset}' could not be written: other workers changed them {ATTEMPTS_MAX} times meanwhile"
    )]
    Contended {
        /// The dataset.
        dataset: String,
    },
}

/// Gives every field of every dataset its id in this lake. Fields that the lake does not know yet are added to it.
///
/// # Errors
/// The lake fails, or its ids cannot be read.
pub async fn number_fields(lake: &dyn ObjectStore, datasets: &mut Datasets) -> Result<(), SchemaError> {
    let names: Vec<String> = datasets.names().map(str::to_owned).collect();
    for (dataset, name) in names.iter().enumerate() {
        number_fields_of(lake, datasets, dataset, name).await?;
    }
    Ok(())
}

/// Gives every field of every dataset the id that [`number_fields`] would give it now, and writes nothing.
///
/// # Errors
/// The lake fails, or its ids cannot be read.
pub async fn preview_fields(lake: &dyn ObjectStore, datasets: &mut Datasets) -> Result<(), SchemaError> {
    let names: Vec<String> = datasets.names().map(str::to_owned).collect();
    for (dataset, name) in names.iter().enumerate() {
        let Newest { version, mut ids } = newest(lake, name, 0).await?;
        let known = ids.count();
        datasets.number_fields(dataset, &mut ids);
        let is_new = version == 0 || ids.count() > known;
        datasets.set_schema_version(dataset, version + u32::from(is_new));
    }
    Ok(())
}

/// The ids of every field that a dataset has had in this lake; `None` if it has had none.
///
/// # Errors
/// The lake fails, or the ids cannot be read.
pub(super) async fn read_field_ids(lake: &dyn ObjectStore, dataset: &str) -> Result<Option<FieldIds>, SchemaError> {
    let Newest { version, ids } = newest(lake, dataset, 0).await?;
    Ok((version > 0).then_some(ids))
}

async fn number_fields_of(
    lake: &dyn ObjectStore,
    datasets: &mut Datasets,
    dataset: usize,
    name: &str,
) -> Result<(), SchemaError> {
    let mut least = 0;
    for _ in 0..ATTEMPTS_MAX {
        let newest = newest(lake, name, least).await?;
        least = newest.version + 1;
        if let Some(version) = add_fields(lake, datasets, dataset, newest).await? {
            datasets.set_schema_version(dataset, version);
            return Ok(());
        }
    }
    Err(SchemaError::Contended { dataset: name.to_owned() })
}

/// The object that counts.
struct Newest {
    /// Its number; 0 if there is none.
    version: u32,
    ids: FieldIds,
}

/// Reads the object that counts. `least`: a number that is known to exist, although a listing may not show it yet.
async fn newest(lake: &dyn ObjectStore, dataset: &str, least: u32) -> Result<Newest, SchemaError> {
    let listed = lake.list(&layout::schemas_of(dataset)).await?;
    let numbers = listed.iter().filter_map(|object| layout::version_of_schema(dataset, object.key.as_str()));
    let version = numbers.max().unwrap_or(0).max(least);
    if version == 0 {
        return Ok(Newest { version, ids: FieldIds::new(dataset) });
    }
    let key = key(dataset, version);
    let unreadable = |problem: String| SchemaError::Unreadable { key: key.clone(), problem };
    let bytes = lake.get(&key).await?.ok_or_else(|| unreadable("it was deleted".to_owned()))?;
    let ids = FieldIds::from_bytes(dataset, &bytes).map_err(|problem| unreadable(problem.to_string()))?;
    if version >= VERSION_MAX {
        return Err(unreadable("its number is the last one".to_owned()));
    }
    Ok(Newest { version, ids })
}

/// Gives the fields of a dataset their ids, and writes the next object if some fields are new. Returns the number of the
/// object that has all of them, or `None` if another worker wrote the next object first.
async fn add_fields(
    lake: &dyn ObjectStore,
    datasets: &mut Datasets,
    dataset: usize,
    Newest { version, mut ids }: Newest,
) -> Result<Option<u32>, SchemaError> {
    let known = ids.count();
    datasets.number_fields(dataset, &mut ids);
    if version > 0 && ids.count() == known {
        return Ok(Some(version));
    }
    let next = version + 1;
    match lake.put_new(&key(ids.dataset(), next), Bytes::from(ids.to_bytes())).await? {
        Written::New => Ok(Some(next)),
        // Perhaps by this very call, whose first answer was lost: then the next attempt finds all fields.
        Written::KeyTaken => Ok(None),
    }
}

fn key(dataset: &str, version: u32) -> ObjectKey {
    ObjectKey::new(layout::schema(dataset, version)).expect("a dataset has a plain name")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::lake::{Fault, MemoryStore};
    use pipeline::dataset::DefinitionText;
    use proptest::prelude::*;

    /// Names and types of columns.
    type Columns = Vec<(String, String)>;

    fn columns(columns: &[(&str, &str)]) -> Columns {
        columns.iter().map(|(name, data_type)| ((*name).to_owned(), (*data_type).to_owned())).collect()
    }

    /// Datasets of one definition named `orders`, with these columns.
    fn orders(columns: &Columns) -> Datasets {
        let mut text = "name = \"orders\"\n[event_time]\npointer = \"/at\"\n".to_owned();
        for (name, data_type) in columns {
            text += &format!("[[column]]\nname = \"{name}\"\npointer = \"/{name}\"\ntype = \"{data_type}\"\n");
        }
        let text = DefinitionText { file: "orders.toml".to_owned(), text };
        Datasets::compile(&[text], &|_, _| Err(String::new())).unwrap()
    }

    /// The ids that an object has, by name and type.
    fn ids_of(object: &[u8]) -> BTreeMap<(String, String), i64> {
        let stored: serde_json::Value = serde_json::from_slice(object).unwrap();
        let text = |field: &serde_json::Value, key: &str| field[key].as_str().unwrap().to_owned();
        let fields = stored["fields"].as_array().unwrap().iter();
        fields.map(|field| ((text(field, "name"), text(field, "type")), field["id"].as_i64().unwrap())).collect()
    }

    /// The ids of these columns in the object of a number.
    fn ids(lake: &MemoryStore, version: u32, columns: &Columns) -> Vec<i64> {
        let all = ids_of(&lake.object(&key("orders", version)).unwrap());
        columns.iter().map(|column| all[column]).collect()
    }

    async fn number_all(lake: &MemoryStore, columns: &Columns) -> Result<u32, SchemaError> {
        let mut datasets = orders(columns);
        number_fields(lake, &mut datasets).await?;
        Ok(datasets.schema_version(0))
    }

    #[tokio::test]
    async fn the_first_worker_writes_the_ids_and_the_next_ones_read_them() {
        let lake = MemoryStore::new();
        let definition = columns(&[("a", "string"), ("b", "int32")]);
        assert_eq!(number_all(&lake, &definition).await.unwrap(), 1);
        assert_eq!(number_all(&lake, &definition).await.unwrap(), 1);
        assert_eq!(number_all(&lake, &definition[..1].to_vec()).await.unwrap(), 1, "no field is new");
        assert_eq!(lake.objects().len(), 1);
        assert_eq!(ids(&lake, 1, &definition), [1, 2]);
    }

    #[tokio::test]
    async fn ids_survive_removed_columns_and_changed_types() {
        let lake = MemoryStore::new();
        let first = columns(&[("a", "string"), ("b", "int32")]);
        number_all(&lake, &first).await.unwrap();
        number_all(&lake, &columns(&[("a", "string"), ("b", "int64"), ("c", "string")])).await.unwrap();
        assert_eq!(number_all(&lake, &columns(&[("b", "int32"), ("d", "string")])).await.unwrap(), 3);
        let all = columns(&[("a", "string"), ("b", "int32"), ("b", "int64"), ("c", "string"), ("d", "string")]);
        // The first definition's ingest columns have the ids 3 to 7.
        assert_eq!(ids(&lake, 3, &all), [1, 2, 8, 9, 10]);
        assert_eq!([ids(&lake, 1, &first), ids(&lake, 2, &first)], [[1, 2], [1, 2]]);
    }

    #[tokio::test]
    async fn a_lost_answer_leaves_ids_that_the_next_attempt_uses() {
        let lake = MemoryStore::new();
        let definition = columns(&[("a", "string")]);
        lake.fail("put_new", 0, Fault::LoseAfter);
        assert!(number_all(&lake, &definition).await.is_err());
        assert_eq!(number_all(&lake, &definition).await.unwrap(), 1);
        // A store that repeats the call itself finds the object that its first call wrote.
        let newer = columns(&[("a", "string"), ("b", "string")]);
        let mut datasets = orders(&newer);
        let seen = newest(&lake, "orders", 0).await.unwrap();
        lake.put_new(
            &key("orders", 2),
            Bytes::from({
                let mut ids = seen.ids.clone();
                datasets.number_fields(0, &mut ids);
                ids.to_bytes()
            }),
        )
        .await
        .unwrap();
        assert_eq!(add_fields(&lake, &mut datasets, 0, seen).await.unwrap(), None);
        assert_eq!(number_all(&lake, &newer).await.unwrap(), 2);
    }

    #[tokio::test]
    async fn an_object_that_the_listing_misses_is_found_by_the_write() {
        let lake = MemoryStore::new();
        let definition = columns(&[("a", "string")]);
        number_all(&lake, &definition).await.unwrap();
        lake.hide_once(&key("orders", 1), 0);
        let other = columns(&[("b", "string")]);
        assert_eq!(number_all(&lake, &other).await.unwrap(), 2);
        assert_eq!(ids(&lake, 2, &definition), [1]);
    }

    #[tokio::test]
    async fn ids_that_cannot_be_read_are_never_assigned_again() {
        let lake = MemoryStore::new();
        let definition = columns(&[("a", "string")]);
        number_all(&lake, &definition).await.unwrap();
        lake.tamper(&key("orders", 1), Some(Bytes::from_static(b"{}")));
        let message = number_all(&lake, &definition).await.unwrap_err().to_string();
        assert!(message.starts_with("_schemas/orders/00000001.json cannot be read: it has format null"), "{message}");
        lake.tamper(&key("orders", VERSION_MAX), Some(Bytes::from(FieldIds::new("orders").to_bytes())));
        let message = number_all(&lake, &definition).await.unwrap_err().to_string();
        assert!(message.contains("99999999.json cannot be read: its number is the last one"), "{message}");
    }

    /// What a worker does next: read, or write what follows from what it read. A crash forgets what it read.
    #[derive(Debug, Clone, Copy)]
    enum Step {
        Go,
        Crash,
        LoseAnswer,
    }

    fn workers() -> impl Strategy<Value = Vec<Columns>> {
        let types = prop::sample::select(vec!["string", "int32", "int64", "bool"]);
        let definition = prop::collection::btree_map("[a-d]", types.prop_map(str::to_owned), 1..5);
        prop::collection::vec(definition.prop_map(|columns| columns.into_iter().collect::<Columns>()), 1..5)
    }

    fn steps() -> impl Strategy<Value = Vec<(usize, Step)>> {
        let step = prop_oneof![6 => Just(Step::Go), 1 => Just(Step::Crash), 1 => Just(Step::LoseAnswer)];
        prop::collection::vec((0..5_usize, step), 0..40)
    }

    proptest! {
        #[test]
        fn workers_at_once_agree_on_every_id_whatever_crashes(workers in workers(), steps in steps()) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let lake = MemoryStore::new();
            let mut states: Vec<(Datasets, Option<Newest>)> =
                workers.iter().map(|columns| (orders(columns), None)).collect();
            runtime.block_on(async {
                for (worker, step) in steps {
                    let (datasets, read) = &mut states[worker % workers.len()];
                    match (step, read.take()) {
                        (Step::Crash, _) => {}
                        (_, None) => *read = Some(newest(&lake, "orders", 0).await.unwrap()),
                        (step, Some(newest)) => {
                            if matches!(step, Step::LoseAnswer) {
                                lake.fail("put_new", 0, Fault::LoseAfter);
                            }
                            let _ = add_fields(&lake, datasets, 0, newest).await;
                        }
                    }
                }
                for columns in &workers {
                    // The last lost answer may not have been asked for yet.
                    if number_all(&lake, columns).await.is_err() {
                        number_all(&lake, columns).await.unwrap();
                    }
                }
            });
            let mut known = BTreeMap::new();
            for (number, object) in lake.objects().values().enumerate() {
                let ids = ids_of(object);
                for (field, id) in &known {
                    prop_assert_eq!(ids.get(field), Some(id), "object {} keeps what the one before it has", number + 1);
                }
                let different: std::collections::BTreeSet<_> = ids.values().collect();
                prop_assert_eq!(different.len(), ids.len());
                known = ids;
            }
            for columns in &workers {
                prop_assert!(columns.iter().all(|column| known.contains_key(column)));
            }
        }
    }
}
