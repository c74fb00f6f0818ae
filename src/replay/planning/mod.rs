//! Planning a replay: what is read again, from where, and what it replaces.
//!
//! Owns: the order of the questions, and the slices. Does not own: the stored plan (`plan`), opening the lake and its sources.
//!
//! It changes nothing. Everything is asked of one version of the lake log, so live workers may write meanwhile.
//!
//! | file | owns |
//! |---|---|
//! | `epochs` | what the log and the commit records say of each epoch |
//! | `selection` | which epochs are replaced |
//! | `reach` | where their records are |
//! | `estimate` | how long it takes and what it costs |

mod epochs;
mod estimate;
mod reach;
mod selection;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use checkpoints::{ShardId, StreamName};
use pipeline::time::format_rfc3339;

use crate::commit::lake_log::{AddedObject, HistoryError, LakeAt, LogVersion, ObjectFilter, extent, lake_at};
use crate::commit::{DefinitionOfEpoch, EpochId, ObjectKind, UnreadableManifest};
use crate::cost::Prices;
use crate::lake::{LakeError, ObjectStore};
use crate::replay::plan::{
    Estimate, Plan, Purpose, ReplayId, Slice, SliceOf, SupersededObject, Totals, Widened, WidenedBecause, check_into,
};
use crate::replay::planning::epochs::{Outline, read_outlines, streams_of};
use crate::replay::planning::reach::{Around, Reach, ReadFrom};
use crate::replay::planning::selection::{Selected, arrivals_before, select};
use crate::source::ShardSource;

pub use reach::{Identities, Missing};
pub use selection::Bound;

/// Stored bytes of raw objects in one slice, at least.
const SLICE_BYTES: u64 = 64 << 20;
/// The most slices of raw objects.
const RAW_SLICES_MAX: u64 = 900;
/// The most slices of a plan: each is a row of the lease table.
const SLICES_MAX: usize = 1_000;
/// What is missing that a message names.
const MISSING_SHOWN: usize = 10;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct PlanRequest {
    /// What the replay is for.
    pub purpose: Purpose,
    /// Where the range begins, and the same as it was written.
    pub from: (Bound, String),
    /// Where it ends, and the same as it was written.
    pub to: (Bound, String),
    /// The streams; all if it is empty.
    pub streams: BTreeSet<StreamName>,
    /// Only epochs with rows of this dataset, or with dead letters, are replaced.
    pub dataset: Option<String>,
    /// Where the aside lake is to be.
    pub into: Option<String>,
    /// Whether streams are read where both have an epoch.
    pub prefers_streams: bool,
}

/// What planning asks.
pub struct Surroundings<'a> {
    /// The lake.
    pub lake: &'a Arc<dyn ObjectStore>,
    /// The configured sources.
    pub sources: &'a [Arc<dyn ShardSource>],
    /// Which raw objects carry identities.
    pub identities: &'a dyn Identities,
    /// By dataset, the definitions by which rows are made now.
    pub definitions: BTreeMap<String, DefinitionOfEpoch>,
    /// The time of day in milliseconds since 1970.
    pub now_ms: i64,
    /// Seconds between two commits.
    pub commit_interval_s: u64,
    /// Prices, if the lake is on AWS.
    pub prices: Option<&'a Prices>,
}

/// Why no plan was made. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum PlanningError {
    /// The lake fails.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// Its log cannot be read.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// A commit record cannot be read.
    #[error(transparent)]
    Manifest(#[from] UnreadableManifest),
    /// What is asked for is not there, or cannot be done.
    #[error("{0}")]
    Usage(String),
    /// A part of the range is neither in the stream nor in `raw/`.
    #[error("{}", Refusal(.0))]
    Missing(Vec<Missing>),
}

impl PlanningError {
    /// Whether the user can fix it by calling otherwise.
    pub fn is_usage(&self) -> bool {
        matches!(self, PlanningError::Usage(_) | PlanningError::Missing(_))
    }
}

struct Refusal<'m>(&'m [Missing]);

impl std::fmt::Display for Refusal<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} of the range cannot be read again. Choose a range without what is missing, with --from or --to, or configure the \
             stream that has it. Missing:",
            if self.0.len() == 1 { "a part".to_owned() } else { format!("{} parts", self.0.len()) }
        )?;
        self.0.iter().take(MISSING_SHOWN).try_for_each(|missing| write!(f, "\n  {missing}"))?;
        match self.0.len().checked_sub(MISSING_SHOWN) {
            Some(more @ 1..) => write!(f, "\n  and {more} more"),
            _ => Ok(()),
        }
    }
}

/// Plans a replay. `id` is its name.
///
/// # Errors
/// See [`PlanningError`].
pub async fn plan_replay(
    around: &Surroundings<'_>,
    request: &PlanRequest,
    id: ReplayId,
) -> Result<Plan, PlanningError> {
    check_request(around, request)?;
    let lake = &**around.lake;
    let extent = extent(lake).await?;
    let version = extent.newest;
    let outlines = read_outlines(lake, &extent, version).await?;
    let streams = chosen_streams(request, &outlines)?;
    let at = lake_at(lake, &extent, version).await?;
    let live = live_operations(lake, &at, &outlines).await?;
    let range = (&request.from.0, &request.to.0);
    let selected = select(&outlines, &streams, range, request.dataset.as_deref(), &live);
    if selected.epochs.is_empty() {
        return Err(PlanningError::Usage(format!(
            "there is nothing to replay: no epoch has records of the range from {} to {}. `shardlake log` lists the versions",
            request.from.1, request.to.1
        )));
    }
    if let Some(epoch) = selected.unknown.first() {
        return Err(PlanningError::Usage(format!(
            "an earlier operation has records of epoch {epoch}, whose commit record is not in the lake"
        )));
    }
    let found = live_objects(lake, &at, &outlines, &selected).await?;
    let reaching = Around {
        outlines: &outlines,
        raw: &found.raw,
        identities: around.identities,
        sources: around.sources,
        arrivals: &arrivals_before(&outlines),
        prefers_streams: request.prefers_streams,
        now_ms: around.now_ms,
    };
    let reach = reaching.choose(&selected.epochs.keys().copied().collect()).await?;
    if !reach.missing.is_empty() {
        return Err(PlanningError::Missing(reach.missing));
    }
    let slices = slices(&reach, &found.raw)?;
    let mut plan = assemble(around, request, (id, version), &outlines, &selected, found, slices);
    plan.streams = streams_of_plan(&outlines, &selected);
    let shared = shares_shards(around, &plan).await;
    plan.estimate = estimate::estimate(around.lake, &plan, around.commit_interval_s, around.prices, shared).await;
    Ok(plan)
}

fn check_request(around: &Surroundings<'_>, request: &PlanRequest) -> Result<(), PlanningError> {
    if let Some(into) = &request.into {
        check_into(into).map_err(PlanningError::Usage)?;
    }
    if let Some(dataset) = request.dataset.as_ref().filter(|name| !around.definitions.contains_key(*name)) {
        return Err(PlanningError::Usage(format!("there is no dataset '{dataset}' in the configuration")));
    }
    if let (Bound::Time(from), Bound::Time(to)) = (&request.from.0, &request.to.0)
        && from >= to
    {
        return Err(PlanningError::Usage(format!("--from {} is not before --to {}", request.from.1, request.to.1)));
    }
    Ok(())
}

fn chosen_streams(request: &PlanRequest, outlines: &[Outline]) -> Result<BTreeSet<StreamName>, PlanningError> {
    let all = streams_of(outlines);
    if let Some(unknown) = request.streams.iter().find(|stream| !all.contains(*stream)) {
        let known: Vec<String> = all.iter().map(ToString::to_string).collect();
        return Err(PlanningError::Usage(format!(
            "the lake has no records of stream '{unknown}'; it has those of {}",
            if known.is_empty() { "none".to_owned() } else { known.join(", ") }
        )));
    }
    Ok(if request.streams.is_empty() { all } else { request.streams.clone() })
}

/// All streams of the selected epochs, also of those that were not asked for.
fn streams_of_plan(outlines: &[Outline], selected: &Selected) -> Vec<StreamName> {
    let epochs: Vec<Outline> = selected.epochs.keys().map(|epoch| outlines[*epoch].clone()).collect();
    streams_of(&epochs).into_iter().collect()
}

/// The operations of which objects are live, by their numbers.
async fn live_operations(
    lake: &dyn ObjectStore,
    at: &LakeAt,
    outlines: &[Outline],
) -> Result<BTreeSet<usize>, HistoryError> {
    let operations: HashMap<&EpochId, usize> = outlines
        .iter()
        .enumerate()
        .filter(|(_, outline)| outline.is_operation)
        .map(|(number, outline)| (&outline.epoch, number))
        .collect();
    let mut live = BTreeSet::new();
    if operations.is_empty() {
        return Ok(live);
    }
    let mut objects = at.live_objects(lake, ObjectFilter::default());
    while let Some(object) = objects.next().await? {
        let owner = EpochId::of_object(&object.key);
        live.extend(owner.and_then(|owner| operations.get(&owner).copied()));
    }
    Ok(live)
}

/// The live objects of what is replaced.
#[derive(Default)]
struct Found {
    superseded: Vec<SupersededObject>,
    /// The raw objects of each epoch.
    raw: HashMap<usize, Vec<AddedObject>>,
}

async fn live_objects(
    lake: &dyn ObjectStore,
    at: &LakeAt,
    outlines: &[Outline],
    selected: &Selected,
) -> Result<Found, HistoryError> {
    let owners: HashMap<&EpochId, usize> =
        selected.epochs.keys().chain(&selected.operations).map(|number| (&outlines[*number].epoch, *number)).collect();
    let mut found = Found::default();
    let mut objects = at.live_objects(lake, ObjectFilter::default());
    while let Some(object) = objects.next().await? {
        let Some(owner) = EpochId::of_object(&object.key).and_then(|owner| owners.get(&owner).copied()) else {
            continue;
        };
        match object.kind {
            ObjectKind::Raw => found.raw.entry(owner).or_default().push(object),
            ObjectKind::Processed | ObjectKind::Error => {
                let AddedObject { key, kind, dataset, rows, bytes, .. } = object;
                found.superseded.push(SupersededObject { key, kind, dataset, rows, bytes });
            }
        }
    }
    found.superseded.sort_by(|left, right| left.key.cmp(&right.key));
    found.raw.values_mut().for_each(|objects| objects.sort_by(|left, right| left.key.cmp(&right.key)));
    Ok(found)
}

/// The slices: first those of streams, then those of raw objects.
fn slices(reach: &Reach, raw: &HashMap<usize, Vec<AddedObject>>) -> Result<Vec<Slice>, PlanningError> {
    let mut parts: Vec<(u64, u64, SliceOf)> = Vec::new();
    for range in &reach.ranges {
        let (stream, shard) = (range.key.stream.clone(), range.key.shard.clone());
        let (after, through) = (range.after.clone(), range.through.clone());
        parts.push((range.records, range.bytes, SliceOf::Stream { stream, shard, after, through }));
    }
    let of_raw =
        || reach.from.iter().filter(|(_, from)| **from == ReadFrom::Raw).filter_map(|(epoch, _)| raw.get(epoch));
    let total: u64 = of_raw().flatten().map(|object| object.bytes).sum();
    let target = SLICE_BYTES.max(total / RAW_SLICES_MAX);
    let (mut records, mut bytes, mut objects) = (0, 0, Vec::new());
    for object in of_raw().flatten() {
        records += object.rows;
        bytes += object.bytes;
        objects.push(object.key.clone());
        if bytes >= target {
            parts.push((records, bytes, SliceOf::Raw { objects: std::mem::take(&mut objects) }));
            (records, bytes) = (0, 0);
        }
    }
    if !objects.is_empty() {
        parts.push((records, bytes, SliceOf::Raw { objects }));
    }
    if parts.len() > SLICES_MAX {
        return Err(PlanningError::Usage(format!(
            "the range has {} parts, and a replay may have {SLICES_MAX}: choose a shorter range, or some of the streams",
            parts.len()
        )));
    }
    let slice = |(number, (records, bytes, from)): (usize, (u64, u64, SliceOf))| {
        let id = ShardId::new(format!("slice-{:05}", number + 1)).expect("a plain name");
        Slice { id, records, bytes, from }
    };
    Ok(parts.into_iter().enumerate().map(slice).collect())
}

fn assemble(
    around: &Surroundings<'_>,
    request: &PlanRequest,
    (id, version): (ReplayId, LogVersion),
    outlines: &[Outline],
    selected: &Selected,
    found: Found,
    slices: Vec<Slice>,
) -> Plan {
    let mut epochs: Vec<EpochId> = selected.epochs.keys().map(|epoch| outlines[*epoch].epoch.clone()).collect();
    let mut operations: Vec<EpochId> =
        selected.operations.iter().map(|operation| outlines[*operation].epoch.clone()).collect();
    epochs.sort();
    operations.sort();
    let widened = selected.epochs.iter().filter_map(|(epoch, because)| Some((*epoch, (*because)?)));
    let widened = widened
        .map(|(epoch, because)| {
            let outline = &outlines[epoch];
            Widened { epoch: outline.epoch.clone(), because, records: outline.records }
        })
        .collect();
    let is_stream = |slice: &&Slice| matches!(slice.from, SliceOf::Stream { .. });
    let mut totals = Totals {
        bytes_from_streams: slices.iter().filter(is_stream).map(|slice| slice.bytes).sum(),
        bytes_from_objects: slices.iter().filter(|slice| !is_stream(slice)).map(|slice| slice.bytes).sum(),
        ..Totals::default()
    };
    for epoch in selected.epochs.keys() {
        totals.records += outlines[*epoch].records;
        totals.bytes += outlines[*epoch].ranges.iter().map(|range| range.bytes).sum::<u64>();
    }
    for object in &found.superseded {
        match &object.dataset {
            _ if object.kind == ObjectKind::Error => totals.dead_letters += object.rows,
            Some(dataset) => *totals.rows.entry(dataset.clone()).or_default() += object.rows,
            None => {}
        }
    }
    let made_by = made_by(outlines, selected);
    let warnings = warnings(around, request, outlines, selected, &made_by);
    Plan {
        format: Plan::FORMAT,
        id,
        purpose: request.purpose,
        made_at: format_rfc3339(around.now_ms),
        version,
        from: request.from.1.clone(),
        to: request.to.1.clone(),
        into: request.into.clone(),
        streams: Vec::new(),
        dataset: request.dataset.clone(),
        slices,
        epochs,
        operations,
        superseded: found.superseded,
        widened,
        totals,
        definitions: around.definitions.clone(),
        made_by,
        warnings,
        estimate: Estimate::default(),
    }
}

/// By dataset, the definitions by which the rows were made that are replaced.
fn made_by(outlines: &[Outline], selected: &Selected) -> BTreeMap<String, Vec<DefinitionOfEpoch>> {
    let mut made_by: BTreeMap<String, Vec<DefinitionOfEpoch>> = BTreeMap::new();
    for number in selected.epochs.keys().chain(&selected.operations) {
        for (dataset, definition) in &outlines[*number].definitions {
            let of_dataset = made_by.entry(dataset.clone()).or_default();
            if !of_dataset.contains(definition) {
                of_dataset.push(definition.clone());
            }
        }
    }
    made_by
}

fn warnings(
    around: &Surroundings<'_>,
    request: &PlanRequest,
    outlines: &[Outline],
    selected: &Selected,
    made_by: &BTreeMap<String, Vec<DefinitionOfEpoch>>,
) -> Vec<String> {
    let mut warnings = Vec::new();
    let today = |dataset: &String| around.definitions.get(dataset).map(|definition| &definition.hash);
    let is_same = |(dataset, all): (&String, &Vec<DefinitionOfEpoch>)| {
        all.iter().all(|definition| Some(&definition.hash) == today(dataset))
    };
    if request.purpose == Purpose::Replay && made_by.iter().all(is_same) {
        warnings
            .push("no definition has changed since the rows were made: the same rows will be made again".to_owned());
    }
    let newest = outlines.iter().rev().find(|outline| !outline.is_operation);
    for (dataset, definition) in newest.map(|newest| &newest.definitions).into_iter().flatten() {
        if today(dataset).is_some_and(|hash| *hash != definition.hash) {
            warnings.push(format!(
                "live workers still write {dataset} with another definition than this configuration has: restart them with it, or \
                 the next rows will differ from the replayed ones"
            ));
        }
    }
    let gone: Vec<&str> =
        made_by.keys().filter(|name| !around.definitions.contains_key(*name)).map(String::as_str).collect();
    if !gone.is_empty() {
        warnings.push(format!("the configuration has no dataset {}: its rows will not be made again", gone.join(", ")));
    }
    let shares = selected.epochs.values().filter(|because| **because == Some(WidenedBecause::SharesObjects)).count();
    if shares > 0 {
        warnings.push(format!(
            "{shares} epochs outside the range are replaced, because an earlier replay has put their rows into the same objects"
        ));
    }
    warnings
}

/// Whether a slice reads a stream that keeps its records for a limited time: its shards have a limited rate.
async fn shares_shards(around: &Surroundings<'_>, plan: &Plan) -> bool {
    for source in around.sources.iter().filter(|source| plan.reads_stream(source.stream())) {
        if matches!(source.retention().await, Ok(Some(_))) {
            return true;
        }
    }
    false
}
