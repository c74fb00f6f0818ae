//! The table of unit prices.
//!
//! Owns: which prices there are ([`Item`]), the table that is built in (`prices.toml`), and reading a user's table, which replaces
//! single rows. Does not own: how many units are used (`estimate`).
//!
//! A row without `usd` has no known price. Whatever uses it is shown without a sum, and the total says that it is incomplete.

use std::collections::BTreeMap;

use pipeline::time::parse_date;
use pipeline::toml_reader::{Document, Problems, Section, nearest};
use serde::Serialize;

/// The table that is built in, as text to start one's own from.
pub const TABLE: &str = include_str!("prices.toml");

macro_rules! items {
    ($($name:ident = $id:literal),* $(,)?) => {
        /// What has a unit price. The table says what each is, and in which unit.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Item {
            $(#[doc = concat!("`", $id, "`")] $name,)*
        }

        impl Item {
            /// All of them, in the order of the table.
            pub const ALL: &[Item] = &[$(Item::$name),*];

            /// Its name in the table.
            pub fn id(self) -> &'static str {
                match self { $(Item::$name => $id),* }
            }
        }
    };
}

items! {
    ShardHours = "kinesis.shard-hours",
    PutUnits = "kinesis.put-units",
    StreamHours = "kinesis.stream-hours",
    StreamIn = "kinesis.stream-in",
    StreamOut = "kinesis.stream-out",
    FanOutHours = "kinesis.fan-out-hours",
    FanOutData = "kinesis.fan-out-data",
    StreamFanOut = "kinesis.stream-fan-out",
    ChannelHours = "kinesis.channel-hours",
    ChannelData = "kinesis.channel-data",
    FirehoseData = "firehose.data",
    FirehoseConversion = "firehose.conversion",
    VcpuHours = "fargate.vcpu-hours",
    MemoryHours = "fargate.memory-hours",
    InstanceHours = "ec2.instance-hours",
    Ipv4Hours = "vpc.ipv4-hours",
    NatHours = "vpc.nat-hours",
    NatData = "vpc.nat-data",
    LambdaRequests = "lambda.requests",
    LambdaTime = "lambda.time",
    S3Standard = "s3.standard",
    S3StandardIa = "s3.standard-ia",
    S3OneZoneIa = "s3.onezone-ia",
    S3Frequent = "s3.intelligent-frequent",
    S3Infrequent = "s3.intelligent-infrequent",
    S3ArchiveInstant = "s3.intelligent-archive-instant",
    S3Archive = "s3.intelligent-archive",
    S3DeepArchiveTier = "s3.intelligent-deep-archive",
    S3Monitoring = "s3.intelligent-monitoring",
    S3GlacierInstant = "s3.glacier-ir",
    S3Glacier = "s3.glacier",
    S3DeepArchive = "s3.deep-archive",
    S3Puts = "s3.puts",
    S3Gets = "s3.gets",
    ToStandardIa = "s3.to-standard-ia",
    ToOneZoneIa = "s3.to-onezone-ia",
    ToIntelligent = "s3.to-intelligent",
    ToGlacierInstant = "s3.to-glacier-ir",
    ToGlacier = "s3.to-glacier",
    ToDeepArchive = "s3.to-deep-archive",
    DynamoWrites = "dynamodb.writes",
    DynamoReads = "dynamodb.reads",
    SecretMonths = "secrets.secret-months",
    Logs = "cloudwatch.logs",
    Alarms = "cloudwatch.alarms",
    Dashboards = "cloudwatch.dashboards",
    Metrics = "cloudwatch.metrics",
    DataEvents = "cloudtrail.data-events",
    AthenaData = "athena.data",
    CrawlerHours = "glue.crawler-hours",
    Authors = "quicksight.authors",
}

impl Item {
    fn find(id: &str) -> Option<Item> {
        Item::ALL.iter().copied().find(|item| item.id() == id)
    }
}

/// How a price of the table was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Checked {
    /// Read on the named page of AWS on that day.
    Page,
    /// Read on that day's page of somebody else, who names AWS's page as the source.
    Quoted,
    /// From memory. Nobody has checked it.
    Unchecked,
    /// No price is published, or none was found.
    Unknown,
}

impl Checked {
    const ALL: [Checked; 4] = [Checked::Page, Checked::Quoted, Checked::Unchecked, Checked::Unknown];

    /// Its name in the table.
    pub fn name(self) -> &'static str {
        match self {
            Checked::Page => "page",
            Checked::Quoted => "quoted",
            Checked::Unchecked => "unchecked",
            Checked::Unknown => "unknown",
        }
    }
}

/// One row of the table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Price {
    /// US dollars for `per` units; `None` if the price is not known.
    pub usd: Option<f64>,
    /// For how many units: 1, 1,000, 1,000,000.
    pub per: f64,
    /// What is counted.
    pub unit: String,
    /// Units of a month that are free for an account, whatever its age.
    pub free: f64,
    /// The region.
    pub region: String,
    /// The day for which the price is known.
    pub day: String,
    /// The name of AWS's page that has it.
    pub page: String,
    /// How it was checked.
    pub checked: Checked,
    /// What one should know about it.
    pub note: Option<String>,
}

impl Price {
    /// The price of one unit in US dollars.
    pub fn one(&self) -> Option<f64> {
        self.usd.map(|usd| usd / self.per)
    }
}

/// A whole table: every item has a row.
#[derive(Debug, Clone, PartialEq)]
pub struct Prices {
    rows: BTreeMap<Item, Price>,
    free_units: bool,
}

impl Prices {
    /// The table that is built in.
    ///
    /// # Panics
    /// It cannot be read, which a test excludes.
    pub fn built_in() -> Self {
        let rows = read_rows("src/cost/prices.toml", TABLE, None).expect("a test reads the table that is built in");
        Prices { rows: rows.into_iter().collect(), free_units: true }
    }

    /// The table, with the rows of a user's file in the place of those that are built in. `file` is only for messages.
    ///
    /// # Errors
    /// All that is wrong with the file. A row must have the unit of the row that it replaces.
    pub fn with_rows_of(mut self, file: &str, text: &str) -> Result<Self, Problems> {
        let rows = read_rows(file, text, Some(&self))?;
        self.rows.extend(rows);
        Ok(self)
    }

    /// The table without the units that are free each month.
    #[must_use]
    pub fn without_free_units(self) -> Self {
        Prices { free_units: false, ..self }
    }

    /// The row of an item.
    ///
    /// # Panics
    /// It has none, which a test excludes.
    pub fn get(&self, item: Item) -> &Price {
        self.rows.get(&item).expect("the table that is built in has a row for every item")
    }

    /// The price of one unit of an item, in US dollars.
    pub fn one(&self, item: Item) -> Option<f64> {
        self.get(item).one()
    }

    /// The units of an item that are free in a month.
    pub fn free(&self, item: Item) -> f64 {
        if self.free_units { self.get(item).free } else { 0.0 }
    }

    /// All rows, in the order of the table.
    pub fn rows(&self) -> impl Iterator<Item = (Item, &Price)> {
        self.rows.iter().map(|(item, price)| (*item, price))
    }
}

/// Reads a table. A user's table must count as `built_in` does.
fn read_rows(file: &str, text: &str, built_in: Option<&Prices>) -> Result<Vec<(Item, Price)>, Problems> {
    let document = Document::new(file, text);
    let mut rows: Vec<(Item, Price)> = Vec::new();
    if let Some(table) = document.parse() {
        let root = document.root(&table);
        for section in root.sections("price") {
            let line = section.line();
            let Some((item, price)) = read_row(section) else { continue };
            if rows.iter().any(|(known, _)| *known == item) {
                document.report(line, format!("'{}' has two rows", item.id()));
            }
            if let Some(known) = built_in.map(|prices| &prices.get(item).unit).filter(|unit| **unit != price.unit) {
                document.report(line, format!("'{}' is counted in '{known}', not in '{}'", item.id(), price.unit));
            }
            rows.push((item, price));
        }
        root.finish();
        if rows.is_empty() {
            document.report(0, "there is no complete [[price]]; cost --print-prices shows what one is");
        }
    }
    let problems = document.into_problems();
    if problems.is_empty() { Ok(rows) } else { Err(problems) }
}

fn read_row(section: Section<'_>) -> Option<(Item, Price)> {
    let line = section.line();
    let id = section.required_text("id");
    let unit = section.required_text("unit");
    let region = section.required_text("region");
    let day = section.required_text("day");
    let page = section.required_text("page");
    let checked = section.required_text("checked");
    let not_negative = |key: &'static str| {
        let number = section.number(key)?;
        if !number.value.is_finite() || number.value < 0.0 {
            section.report(number.line, format!("{key} must not be negative"));
            return None;
        }
        Some(number.value)
    };
    let usd = not_negative("usd");
    let free = not_negative("free").unwrap_or(0.0);
    let per = not_negative("per").unwrap_or(1.0);
    if per <= 0.0 {
        section.report(line, "per must be more than 0");
    }
    let note = section.text("note").map(|note| note.value);
    let item = id.and_then(|id| {
        let item = Item::find(&id.value);
        if item.is_none() {
            let known = nearest(&id.value, Item::ALL.iter().map(|item| item.id()));
            let hint = known.map_or_else(
                || "cost --print-prices shows all rows".to_owned(),
                |known| format!("did you mean '{known}'?"),
            );
            section.report(id.line, format!("there is no price '{}'; {hint}", id.value));
        }
        item
    });
    let checked = checked.and_then(|checked| {
        let found = Checked::ALL.into_iter().find(|known| known.name() == checked.value);
        if found.is_none() {
            section.report(checked.line, "checked must be page, quoted, unchecked or unknown");
        }
        found
    });
    if checked == Some(Checked::Unknown) && usd.is_some() {
        section.report(line, "a row with usd says how its price was checked: page, quoted or unchecked");
    }
    if checked.is_some_and(|checked| checked != Checked::Unknown) && !section.has("usd") {
        section.report(line, "a row without usd must have checked = \"unknown\"");
    }
    if let Some(day) = day.as_ref().filter(|day| parse_date(day.value.as_bytes()).is_none()) {
        section.report(day.line, format!("'{}' is not a day such as 2026-11-30", day.value));
    }
    section.finish();
    let price = Price {
        usd,
        per,
        unit: unit?.value,
        free,
        region: region?.value,
        day: day?.value,
        page: page?.value,
        checked: checked?,
        note,
    };
    Some((item?, price))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: &str = "[[price]]\nid = \"s3.puts\"\nusd = 0.0054\nper = 1000\nunit = \"request\"\nregion = \"eu-central-1\"\n\
                       day = \"2027-01-02\"\npage = \"Amazon S3 pricing\"\nchecked = \"page\"\n";

    #[test]
    fn every_item_has_a_row_with_its_source() {
        let prices = Prices::built_in();
        assert_eq!(prices.rows().count(), Item::ALL.len());
        for (item, price) in prices.rows() {
            assert!(!price.page.is_empty() && price.region == "us-east-1", "{}", item.id());
            assert_eq!(price.usd.is_none(), price.checked == Checked::Unknown, "{}", item.id());
        }
        // Whoever builds the program has not seen AWS's pages.
        assert!(prices.rows().all(|(_, price)| price.checked != Checked::Page));
    }

    #[test]
    fn a_row_of_a_user_replaces_the_built_in_one() {
        let prices = Prices::built_in().with_rows_of("own.toml", ROW).unwrap();
        assert_eq!(prices.one(Item::S3Puts), Some(0.000_005_4));
        assert_eq!(prices.get(Item::S3Puts).region, "eu-central-1");
        assert_eq!(prices.get(Item::S3Gets), Prices::built_in().get(Item::S3Gets));
    }

    #[test]
    fn a_price_that_aws_does_not_publish_can_be_filled_in() {
        assert_eq!(Prices::built_in().one(Item::ChannelData), None);
        let row = ROW.replace("s3.puts", "kinesis.channel-data").replace("\"request\"", "\"GB\"");
        let prices = Prices::built_in().with_rows_of("own.toml", &row).unwrap();
        assert_eq!(prices.one(Item::ChannelData), Some(0.000_005_4));
    }

    #[test]
    fn every_problem_of_a_file_is_reported_with_its_line() {
        let text = [
            &ROW.replace("s3.puts", "s3.putz"),
            &ROW.replace("\"request\"", "\"GB\""),
            &ROW.replace("usd = 0.0054", "usd = -1"),
            &ROW.replace("2027-01-02", "tomorrow"),
            &ROW.replace("\"page\"", "\"perhaps\""),
            &ROW.replace("usd", "eur"),
            &ROW.replace("per = 1000", "per = 0"),
        ];
        let text: String = text.iter().map(|row| row.as_str()).collect();
        let problems: Vec<String> =
            Prices::built_in().with_rows_of("own.toml", &text).unwrap_err().iter().map(ToString::to_string).collect();
        for expected in [
            "own.toml:2: there is no price 's3.putz'; did you mean 's3.puts'?",
            "'s3.puts' is counted in 'request', not in 'GB'",
            "usd must not be negative",
            "'tomorrow' is not a day such as 2026-11-30",
            "checked must be page, quoted, unchecked or unknown",
            "unknown key 'eur' in [price]; known here: id, ",
            "per must be more than 0",
            "'s3.puts' has two rows",
        ] {
            assert!(problems.iter().any(|problem| problem.contains(expected)), "{expected}: {problems:#?}");
        }
    }

    #[test]
    fn free_units_can_be_left_out() {
        assert!(Prices::built_in().free(Item::LambdaRequests) > 0.0);
        assert_eq!(Prices::built_in().without_free_units().free(Item::LambdaRequests), 0.0);
    }
}
