//! CreateTable, DescribeTable, UpdateTable, DeleteTable, ListTables, and the settings of backups and of time to live.
//!
//! Owns: creating and deleting tables and indexes; both can take time (`DynamoDb::set_creation_ms`), as on AWS. Does not own:
//! items.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use super::State;
use super::error::{Refused, in_use, limit_exceeded, not_found, validation};
use super::request::{Request, choice, count, flag, objects, table_name, text};
use super::table::{Index, KeyPart, Projection, Schema, Table};

const ACCOUNT: &str = "arn:aws:dynamodb:us-east-1:000000000000:table";

fn attributes(request: &Request) -> Result<BTreeMap<String, String>, Refused> {
    let mut attributes = BTreeMap::new();
    for definition in objects(request, "AttributeDefinitions")? {
        let name = text(definition, "AttributeName")?.unwrap_or_default();
        let kind = choice(definition, "AttributeType", &["S", "N", "B"])?;
        attributes.insert(name.to_owned(), kind.to_owned());
    }
    Ok(attributes)
}

fn schema(request: &Request, attributes: &BTreeMap<String, String>) -> Result<Schema, Refused> {
    let mut parts = Vec::new();
    for (place, element) in objects(request, "KeySchema")?.into_iter().enumerate() {
        let name = text(element, "AttributeName")?.unwrap_or_default();
        let expected = if place == 0 { "HASH" } else { "RANGE" };
        if text(element, "KeyType")? != Some(expected) || place > 1 {
            return Err(validation(
                "Invalid KeySchema: The first KeySchemaElement is not a HASH key type, or the second is not a RANGE key type",
            ));
        }
        let kind = attributes.get(name).ok_or_else(|| {
            validation(format!(
                "One or more parameter values were invalid: Some index key attributes are not defined in \
                 AttributeDefinitions. Keys: [{name}], AttributeDefinitions: [{}]",
                attributes.keys().cloned().collect::<Vec<_>>().join(", ")
            ))
        })?;
        parts.push(KeyPart { name: name.to_owned(), kind: kind.clone() });
    }
    let mut parts = parts.into_iter();
    let hash = parts.next().ok_or_else(|| validation("Invalid KeySchema: no HASH key"))?;
    let range = parts.next();
    if range.as_ref().is_some_and(|range| range.name == hash.name) {
        return Err(validation("Both the Hash Key and the Range Key element in the KeySchema have the same name"));
    }
    Ok(Schema { hash, range })
}

fn index(request: &Request, attributes: &BTreeMap<String, String>, active_from_ms: u64) -> Result<Index, Refused> {
    let name = text(request, "IndexName")?.unwrap_or_default().to_owned();
    let schema = schema(request, attributes)?;
    let given = request.get("Projection").and_then(Json::as_object);
    let kind = given.map(|given| choice(given, "ProjectionType", &["", "ALL", "KEYS_ONLY", "INCLUDE"])).transpose()?;
    let projection = match (kind, given) {
        (Some("ALL"), _) => Projection::All,
        (Some("KEYS_ONLY"), _) => Projection::KeysOnly,
        (Some("INCLUDE"), Some(given)) => {
            let names = given.get("NonKeyAttributes").and_then(Json::as_array);
            Projection::Include(names.into_iter().flatten().filter_map(Json::as_str).map(str::to_owned).collect())
        }
        _ => return Err(validation("One or more parameter values were invalid: Unknown ProjectionType: null")),
    };
    Ok(Index { name, schema, projection, active_from_ms })
}

/// Creates a table.
pub(super) fn create(state: &mut State, request: &Request) -> Result<Json, Refused> {
    let name = table_name(request)?.to_owned();
    let attributes = attributes(request)?;
    let schema = schema(request, &attributes)?;
    let active_from_ms = state.now_ms + state.making_ms;
    let mut indexes = Vec::new();
    for given in objects(request, "GlobalSecondaryIndexes")? {
        indexes.push(index(given, &attributes, active_from_ms)?);
    }
    let used = |name: &String| schema.has(name) || indexes.iter().any(|index: &Index| index.schema.has(name));
    if !attributes.keys().all(used) {
        return Err(validation(
            "One or more parameter values were invalid: Number of attributes in KeySchema does not exactly match number of \
             attributes defined in AttributeDefinitions",
        ));
    }
    let pay_per_request = choice(request, "BillingMode", &["PROVISIONED", "PAY_PER_REQUEST"])? == "PAY_PER_REQUEST";
    if pay_per_request == request.contains_key("ProvisionedThroughput") {
        return Err(validation(if pay_per_request {
            "One or more parameter values were invalid: Neither ReadCapacityUnits nor WriteCapacityUnits can be specified when \
             BillingMode is PAY_PER_REQUEST"
        } else {
            "One or more parameter values were invalid: ReadCapacityUnits and WriteCapacityUnits must both be specified when \
             BillingMode is PROVISIONED"
        }));
    }
    if state.tables.contains_key(&name) {
        return Err(in_use(format!("Table already exists: {name}")));
    }
    let mut table = Table::new(name.clone(), schema, attributes, state.now_ms);
    table.indexes = indexes;
    table.active_from_ms = active_from_ms;
    table.deletion_protection = flag(request, "DeletionProtectionEnabled");
    table.pay_per_request = pay_per_request;
    table.creation = request.clone();
    let message = description(&table, state.now_ms);
    state.tables.insert(name, table);
    Ok(json!({ "TableDescription": message }))
}

/// Switches point-in-time recovery on or off.
pub(super) fn update_backups(state: &mut State, request: &Request) -> Result<Json, Refused> {
    let name = table_name(request)?;
    let table = state.tables.get_mut(name).ok_or_else(|| not_found(format!("Table not found: {name}")))?;
    let given = request.get("PointInTimeRecoverySpecification").and_then(Json::as_object);
    table.backups = given.is_some_and(|given| flag(given, "PointInTimeRecoveryEnabled"));
    Ok(backups(table))
}

/// Describes point-in-time recovery.
pub(super) fn describe_backups(state: &State, request: &Request) -> Result<Json, Refused> {
    let name = table_name(request)?;
    let table = state.tables.get(name).ok_or_else(|| not_found(format!("Table not found: {name}")))?;
    Ok(backups(table))
}

fn backups(table: &Table) -> Json {
    let status = if table.backups { "ENABLED" } else { "DISABLED" };
    json!({ "ContinuousBackupsDescription": {
        "ContinuousBackupsStatus": "ENABLED",
        "PointInTimeRecoveryDescription": { "PointInTimeRecoveryStatus": status },
    }})
}

/// Switches the expiry of rows on or off. No row expires.
pub(super) fn update_time_to_live(state: &mut State, request: &Request) -> Result<Json, Refused> {
    let name = table_name(request)?;
    let missing = || not_found(format!("Requested resource not found: Table: {name} not found"));
    let table = state.tables.get_mut(name).ok_or_else(missing)?;
    let given = request.get("TimeToLiveSpecification").and_then(Json::as_object);
    let attribute = given.and_then(|given| given.get("AttributeName")).and_then(Json::as_str);
    let (Some(given), Some(attribute)) = (given, attribute) else {
        return Err(validation("TimeToLiveSpecification needs Enabled and AttributeName"));
    };
    let is_on = flag(given, "Enabled");
    if is_on == table.time_to_live.is_some() {
        let how = if is_on { "enabled" } else { "disabled" };
        return Err(validation(format!("TimeToLive is already {how}")));
    }
    table.time_to_live = is_on.then(|| attribute.to_owned());
    Ok(json!({ "TimeToLiveSpecification": { "Enabled": is_on, "AttributeName": attribute } }))
}

/// Describes the expiry of rows.
pub(super) fn describe_time_to_live(state: &State, request: &Request) -> Result<Json, Refused> {
    let name = table_name(request)?;
    let missing = || not_found(format!("Requested resource not found: Table: {name} not found"));
    let table = state.tables.get(name).ok_or_else(missing)?;
    let description = match &table.time_to_live {
        Some(attribute) => json!({ "TimeToLiveStatus": "ENABLED", "AttributeName": attribute }),
        None => json!({ "TimeToLiveStatus": "DISABLED" }),
    };
    Ok(json!({ "TimeToLiveDescription": description }))
}

/// Describes a table.
pub(super) fn describe(state: &State, request: &Request) -> Result<Json, Refused> {
    let name = table_name(request)?;
    let table = state
        .tables
        .get(name)
        .ok_or_else(|| not_found(format!("Requested resource not found: Table: {name} not found")))?;
    Ok(json!({ "Table": description(table, state.now_ms) }))
}

/// Deletes a table.
pub(super) fn delete(state: &mut State, request: &Request) -> Result<Json, Refused> {
    let name = table_name(request)?;
    let table = state
        .tables
        .get(name)
        .ok_or_else(|| not_found(format!("Requested resource not found: Table: {name} not found")))?;
    if table.active_from_ms > state.now_ms {
        return Err(in_use(format!(
            "Attempt to change a resource which is still in use: Table is being created: {name}"
        )));
    }
    if table.deletion_protection {
        return Err(validation(
            "Resource cannot be deleted as it is currently protected against deletion. Disable deletion protection first.",
        ));
    }
    let mut message = description(table, state.now_ms);
    message["TableStatus"] = json!("DELETING");
    state.tables.remove(name);
    Ok(json!({ "TableDescription": message }))
}

/// Adds or removes one index; other settings are accepted unchecked.
pub(super) fn update(state: &mut State, request: &Request) -> Result<Json, Refused> {
    let name = table_name(request)?;
    let (now_ms, making_ms) = (state.now_ms, state.making_ms);
    let table = state
        .tables
        .get_mut(name)
        .ok_or_else(|| not_found(format!("Requested resource not found: Table: {name} not found")))?;
    if table.active_from_ms > now_ms || table.indexes.iter().any(|index| index.active_from_ms > now_ms) {
        return Err(in_use(format!(
            "Attempt to change a resource which is still in use: Table is being updated: {name}"
        )));
    }
    let changes = objects(request, "GlobalSecondaryIndexUpdates")?;
    if changes.len() > 1 {
        return Err(limit_exceeded(
            "Subscriber limit exceeded: Only 1 online index can be created or deleted simultaneously per table",
        ));
    }
    if let Some(change) = changes.first() {
        if let Some(create) = change.get("Create").and_then(Json::as_object) {
            let mut known = table.attributes.clone();
            for (name, kind) in attributes(request)? {
                if known.insert(name.clone(), kind.clone()).is_some_and(|before| before != kind) {
                    return Err(validation(format!("Cannot change the definition of the existing attribute {name}")));
                }
            }
            let index = index(create, &known, now_ms + making_ms)?;
            if table.index(&index.name).is_some() {
                return Err(validation("Attempting to create an index which already exists"));
            }
            known.retain(|name, _| {
                table.schema.has(name) || index.schema.has(name) || table.indexes.iter().any(|i| i.schema.has(name))
            });
            table.attributes = known;
            table.indexes.push(index);
        } else if let Some(delete) = change.get("Delete").and_then(Json::as_object) {
            let index = text(delete, "IndexName")?.unwrap_or_default();
            if table.index(index).is_none() {
                return Err(not_found(format!("Requested resource not found: Index: {index} not found")));
            }
            table.indexes.retain(|known| known.name != index);
            let (schema, indexes) = (&table.schema, &table.indexes);
            table.attributes.retain(|name, _| schema.has(name) || indexes.iter().any(|i| i.schema.has(name)));
        }
    }
    if let Some(protected) = request.get("DeletionProtectionEnabled").and_then(Json::as_bool) {
        table.deletion_protection = protected;
    }
    Ok(json!({ "TableDescription": description(table, now_ms) }))
}

/// The names of tables, in pages.
pub(super) fn list(state: &State, request: &Request) -> Result<Json, Refused> {
    let limit = usize::try_from(count(request, "Limit", 1, 100)?.unwrap_or(100)).unwrap_or(100);
    let after = text(request, "ExclusiveStartTableName")?.unwrap_or_default();
    let mut names: Vec<&String> = state.tables.keys().filter(|name| name.as_str() > after).collect();
    let more = names.len() > limit;
    names.truncate(limit);
    let mut answer = json!({ "TableNames": names });
    if let (true, Some(last)) = (more, names.last()) {
        answer["LastEvaluatedTableName"] = json!(last);
    }
    Ok(answer)
}

fn key_schema(schema: &Schema) -> Json {
    schema
        .parts()
        .zip(["HASH", "RANGE"])
        .map(|(part, kind)| json!({ "AttributeName": part.name, "KeyType": kind }))
        .collect()
}

fn description(table: &Table, now_ms: u64) -> Json {
    let status = |active_from_ms: u64| if active_from_ms <= now_ms { "ACTIVE" } else { "CREATING" };
    let making = table.indexes.iter().any(|index| index.active_from_ms > now_ms);
    let table_status = match status(table.active_from_ms) {
        "ACTIVE" if making => "UPDATING",
        other => other,
    };
    let seconds = std::time::Duration::from_millis(table.created_ms).as_secs_f64();
    let mut message = json!({
        "TableName": table.name,
        "TableArn": format!("{ACCOUNT}/{}", table.name),
        "TableStatus": table_status,
        "CreationDateTime": seconds,
        "KeySchema": key_schema(&table.schema),
        "AttributeDefinitions": table.attributes.iter()
            .map(|(name, kind)| json!({ "AttributeName": name, "AttributeType": kind })).collect::<Vec<_>>(),
        "ItemCount": table.len(),
        "TableSizeBytes": table.bytes(),
        "DeletionProtectionEnabled": table.deletion_protection,
        "ProvisionedThroughput": { "NumberOfDecreasesToday": 0, "ReadCapacityUnits": 0, "WriteCapacityUnits": 0 },
    });
    if table.pay_per_request {
        message["BillingModeSummary"] = json!({ "BillingMode": "PAY_PER_REQUEST" });
    }
    if !table.indexes.is_empty() {
        message["GlobalSecondaryIndexes"] = table
            .indexes
            .iter()
            .map(|index| {
                let projection = match &index.projection {
                    Projection::All => json!({ "ProjectionType": "ALL" }),
                    Projection::KeysOnly => json!({ "ProjectionType": "KEYS_ONLY" }),
                    Projection::Include(names) => json!({ "ProjectionType": "INCLUDE", "NonKeyAttributes": names }),
                };
                let entries = table.entries(Some(index), 0).len();
                json!({
                    "IndexName": index.name,
                    "IndexArn": format!("{ACCOUNT}/{}/index/{}", table.name, index.name),
                    "IndexStatus": status(index.active_from_ms),
                    "KeySchema": key_schema(&index.schema),
                    "Projection": projection,
                    "ItemCount": entries,
                })
            })
            .collect();
    }
    message
}
