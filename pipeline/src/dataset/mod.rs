//! Datasets: the schema is data, not code.
//!
//! Owns: reading definitions (TOML), and compiling each once into a plan that decodes JSON straight into columns. A
//! definition that makes no sense is refused with file, line and what to write instead. Does not own: the records.
//!
//! The path of a definition: `read` (form) → `definition` → `check` (sense) → `compile` (through `tree`) → `plan`. What
//! follows from a scalar type is in `types`, what follows from a rule for personal values in `rule`.

pub(crate) mod input_kind;
pub(crate) mod time_format;
pub(crate) mod types;

pub(crate) mod definition;
mod pointer;
mod read;
pub(crate) mod rule;

mod check;
pub(crate) mod pattern;
mod personal;

mod compile;
pub(crate) mod lookup;
mod tree;

mod field_ids;
mod history;
pub(crate) mod keys;
pub(crate) mod plan;
pub(crate) mod recognize;

mod catalog;
mod cloudformation;
mod schema;
mod search;

use std::sync::Arc;

use crate::dataset::definition::Definition;
use crate::dataset::plan::{Leaf, Plan};
use crate::dataset::recognize::Markers;
use crate::layout::Area;
use crate::toml_reader::{Problem, Problems};

pub use compile::Tables;
pub use field_ids::{FieldIds, InvalidFieldIds};
pub use history::{Change, ChangeKind, DefinitionHistory, InvalidHistory, Verdict};
pub use lookup::LookupTable;
pub use schema::SchemaFormat;
pub use search::SearchColumn;

/// A definition's text and where it came from.
#[derive(Debug, Clone)]
pub struct DefinitionText {
    /// File name as the user knows it; for messages, and to find lookup files next to it.
    pub file: String,
    /// The TOML text.
    pub text: String,
}

/// The definitions that ship with the product, in their order of precedence.
pub fn shipped() -> Vec<DefinitionText> {
    let shipped = |file: &str, text: &str| DefinitionText { file: file.to_owned(), text: text.to_owned() };
    vec![
        shipped("events.toml (shipped)", include_str!("../../datasets/events.toml")),
        shipped("assessments.toml (shipped)", include_str!("../../datasets/assessments.toml")),
        shipped("users.toml (shipped)", include_str!("../../datasets/users.toml")),
        shipped("ses.toml (shipped)", include_str!("../../datasets/ses.toml")),
        shipped("sms.toml (shipped)", include_str!("../../datasets/sms.toml")),
    ]
}

/// All datasets of a run, compiled.
#[derive(Debug)]
pub struct Datasets {
    plans: Vec<Arc<Plan>>,
    definitions: Vec<Definition>,
    markers: Markers,
    schemas: Vec<Schema>,
}

/// How a lake knows the fields of one dataset.
#[derive(Debug)]
struct Schema {
    /// The id of every field, in the order of [`FieldIds::assign`].
    field_ids: Vec<i32>,
    /// The version of the lake's field ids that has them all; 0 if there is no lake.
    version: u32,
}

impl Datasets {
    /// Compiles definitions. The first that recognizes a record gets it. `tables` reads lookup tables.
    ///
    /// # Errors
    /// Every problem of every definition.
    pub fn compile(texts: &[DefinitionText], tables: &Tables<'_>) -> Result<Datasets, Problems> {
        let mut problems = Problems::default();
        let mut definitions: Vec<Definition> = Vec::new();
        for DefinitionText { file, text } in texts {
            match Definition::parse(file, text) {
                Ok(definition) => {
                    problems.extend(check::check(file, &definition));
                    if definitions.iter().any(|other| other.name.value == definition.name.value) {
                        let message = format!("there are two datasets named '{}'", definition.name.value);
                        problems.push(Problem { file: file.clone(), line: definition.name.line, message });
                    }
                    definitions.push(definition);
                }
                Err(found) => problems.extend(found),
            }
        }
        if definitions.is_empty() && problems.is_empty() {
            problems.push(Problem {
                file: "datasets".to_owned(),
                line: 0,
                message: "no definition is given".to_owned(),
            });
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let markers = Markers::new(&definitions).map_err(|message| {
            let mut problems = Problems::default();
            problems.push(Problem { file: "datasets".to_owned(), line: 0, message });
            problems
        })?;
        for (definition, DefinitionText { file, .. }) in definitions.iter().zip(texts) {
            problems.extend(check::recognized_outside(file, definition, &definitions));
        }
        let mut plans = Vec::new();
        for (dataset, (definition, DefinitionText { file, text })) in definitions.iter().zip(texts).enumerate() {
            match compile::compile(file, definition, text, (&markers, dataset), tables) {
                Ok(plan) => plans.push(Arc::new(plan)),
                Err(found) => problems.extend(found),
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let schema =
            |plan: &Arc<Plan>| Schema { field_ids: FieldIds::new(&*plan.name).assign(&plan.columns), version: 0 };
        let schemas = plans.iter().map(schema).collect();
        Ok(Datasets { plans, definitions, markers, schemas })
    }

    /// The name in a definition, if it can be read.
    pub fn name_of(file: &str, text: &str) -> Option<String> {
        Definition::parse(file, text).ok().map(|definition| definition.name.value)
    }

    /// The number of the dataset of a name.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.plans.iter().position(|plan| *plan.name == *name)
    }

    /// The datasets' names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.plans.iter().map(|plan| &*plan.name)
    }

    /// The hash of a dataset's definition and of the lookup tables it is joined to, in hex.
    pub fn version(&self, dataset: usize) -> &str {
        &self.plans[dataset].version
    }

    /// Gives the fields of a dataset their ids in `ids`, to which new fields are added. Without this call a dataset's
    /// fields are numbered from 1.
    pub fn number_fields(&mut self, dataset: usize, ids: &mut FieldIds) {
        self.schemas[dataset].field_ids = ids.assign(&self.plans[dataset].columns);
    }

    /// Sets the version of the lake's field ids that the dataset's fields were numbered with.
    pub fn set_schema_version(&mut self, dataset: usize, version: u32) {
        self.schemas[dataset].version = version;
    }

    /// The version of the lake's field ids that the dataset's fields were numbered with; 0 if there is no lake.
    pub fn schema_version(&self, dataset: usize) -> u32 {
        self.schemas[dataset].version
    }

    /// The id of every field of a dataset: each before those inside it, partition columns included.
    pub(crate) fn field_ids(&self, dataset: usize) -> &[i32] {
        &self.schemas[dataset].field_ids
    }

    /// What the files of a dataset are written with by its definition.
    pub fn history(&self, dataset: usize) -> DefinitionHistory {
        DefinitionHistory::of_definition(&self.definitions[dataset], &self.plans[dataset])
    }

    /// The differences between a lake's history of a dataset and its definition: first those that are refused.
    pub fn changes(&self, dataset: usize, lake: &DefinitionHistory) -> Vec<Change> {
        lake.changes_to(&self.history(dataset))
    }

    /// The dotted paths of the columns and of the fields in them that are as a lake has them.
    pub fn unchanged(&self, dataset: usize, lake: &DefinitionHistory) -> Vec<String> {
        lake.unchanged(&self.history(dataset))
    }

    /// A dataset's partition columns.
    pub fn partition_columns(&self, dataset: usize) -> impl Iterator<Item = &str> {
        self.plans[dataset].partitions.iter().map(plan::Partition::name)
    }

    /// The lookups that a dataset is joined to, by name.
    pub fn lookups(&self, dataset: usize) -> impl Iterator<Item = &str> {
        self.plans[dataset].lookups.iter().map(|lookup| lookup.name.as_str())
    }

    /// Whether any dataset makes pseudonyms, so that a key is needed.
    pub fn need_key(&self) -> bool {
        let pseudonyms = |plan: &Arc<Plan>| plan.leaves.iter().any(Leaf::is_pseudonym);
        self.plans.iter().any(pseudonyms)
    }

    /// A dataset's schema for other programs; `lake` is the location of the lake, without a final slash.
    pub fn schema(&self, dataset: usize, format: SchemaFormat, lake: &str) -> String {
        let plan = &self.plans[dataset];
        schema::render(
            &self.definitions[dataset],
            plan,
            format,
            &format!("{lake}/{}{}/", Area::Processed.prefix(), plan.name),
        )
    }

    /// The tables of all datasets as resources of a CloudFormation template: indented lines of its section `Resources`. The
    /// template needs parameters `BucketName` and `LakePrefix`, and a resource `Database`.
    pub fn cloudformation(&self) -> String {
        let tables = self.definitions.iter().zip(&self.plans);
        let tables: Vec<String> = tables.map(|(definition, plan)| cloudformation::table(definition, plan)).collect();
        tables.join("\n")
    }

    /// A CloudFormation template with the tables of all datasets as its generated part ([`Datasets::cloudformation`]); `None` if
    /// it does not have the two comments around that part.
    pub fn insert_into_template(&self, template: &str) -> Option<String> {
        cloudformation::replace_generated(template, &self.cloudformation())
    }

    pub(crate) fn plan(&self, dataset: usize) -> &Arc<Plan> {
        &self.plans[dataset]
    }

    pub(crate) fn plans(&self) -> &[Arc<Plan>] {
        &self.plans
    }

    pub(crate) fn recognize(&self, marks: u64) -> Option<usize> {
        self.markers.recognize(marks)
    }
}
