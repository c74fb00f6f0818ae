//! The partition of a row.
//!
//! Owns: numbering the partitions of a dataset. Does not own: how a partition's path is written (`layout`), where the values of
//! a row come from, when partitions are written (`lane`).

use crate::columns::intern::Interner;
use crate::dataset::plan::Partition;
use crate::layout::{PartitionPath, PathValue};
use crate::time::{Day, day_of};

/// The number of a partition in its table.
pub(crate) type PartitionId = u32;

/// Partitions seen so far.
#[derive(Debug)]
pub(crate) struct Partitions {
    columns: Vec<Partition>,
    /// The finest part of a date that the partition depends on.
    grain: Grain,
    /// From (date, first text value), then (so far, next text value), to a number.
    pairs: PairMap,
    /// For each number of `pairs`: the path, if the number is that of a whole partition.
    paths: Vec<Path>,
    /// Partitions that were found for the first time since the last [`Partitions::take_fresh`].
    fresh: Vec<PartitionId>,
    steps: u32,
    last_day: i64,
    last_code: u32,
}

/// What is known of a partition's path.
#[derive(Debug)]
enum Path {
    /// No row has asked for it yet, or it is only a part of a partition.
    NotBuilt,
    /// It would be longer than a path may be.
    TooLong,
    Built(PartitionPath),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Grain {
    None,
    Year,
    Month,
    Day,
}

impl Partitions {
    pub(crate) fn new(columns: &[Partition]) -> Self {
        let grain = |column: &Partition| match column {
            Partition::Year => Grain::Year,
            Partition::Month => Grain::Month,
            Partition::Day => Grain::Day,
            Partition::Text { .. } => Grain::None,
        };
        Partitions {
            grain: columns.iter().map(grain).max().unwrap_or(Grain::None),
            columns: columns.to_vec(),
            pairs: PairMap::default(),
            paths: Vec::new(),
            fresh: Vec::new(),
            steps: 0,
            last_day: i64::MIN,
            last_code: 0,
        }
    }

    /// The text leaves whose values a partition needs, in order.
    pub(crate) fn text_leaves(&self) -> impl Iterator<Item = usize> {
        self.columns.iter().filter_map(|column| match column {
            Partition::Text { leaf, .. } => Some(*leaf),
            _ => None,
        })
    }

    /// The partition of a row whose event time is on this day, counted from 1970-01-01. `values` are the dictionary numbers of its text values (0: null), and
    /// `dictionaries` have the texts. `None` if its path would be too long.
    #[inline]
    pub(crate) fn find(
        &mut self,
        day: i64,
        values: impl Iterator<Item = u32>,
        dictionaries: &[&Interner],
    ) -> Option<PartitionId> {
        let date = self.date_code(day);
        let mut code = date;
        let mut numbers = [0_u32; Partition::TEXTS_MAX];
        let mut count = 0;
        for value in values {
            numbers[count] = value;
            count += 1;
            // The number of the last step is the partition. The numbers of the steps before it only need to be unique.
            code = self.step(code, value, count);
        }
        if count == 0 {
            code = self.step(date, 0, 1);
        }
        if matches!(self.paths[code as usize], Path::NotBuilt) {
            self.paths[code as usize] = match self.path(day, &numbers[..count], dictionaries) {
                Some(path) => {
                    self.fresh.push(code);
                    Path::Built(path)
                }
                None => Path::TooLong,
            };
        }
        matches!(self.paths[code as usize], Path::Built(_)).then_some(code)
    }

    #[inline]
    fn step(&mut self, code: u32, value: u32, depth: usize) -> u32 {
        // All steps number their results from one counter, so `code` also identifies the depth. Only the date codes of depth
        // one could collide with these numbers; a bit keeps them apart.
        let pair = (u64::from(code) | if depth == 1 { 1 << 31 } else { 0 }) << 32 | u64::from(value);
        let (found, new) = self.pairs.get_or_insert(pair, self.steps);
        if new {
            self.steps += 1;
            self.paths.push(Path::NotBuilt);
        }
        found
    }

    #[inline]
    fn date_code(&mut self, day: i64) -> u32 {
        if day == self.last_day {
            return self.last_code;
        }
        let Day { year, month, .. } = day_of(day);
        let code = match self.grain {
            Grain::None => 0,
            Grain::Year => i64::from(year),
            Grain::Month => i64::from(year) * 12 + i64::from(month),
            Grain::Day => day + 1_000_000,
        };
        self.last_day = day;
        self.last_code = u32::try_from(code).unwrap_or(0);
        self.last_code
    }

    fn path(&self, day: i64, values: &[u32], dictionaries: &[&Interner]) -> Option<PartitionPath> {
        let Day { year, month, day } = day_of(day);
        let mut texts = values.iter().zip(dictionaries);
        let columns = self.columns.iter().map(|column| {
            let value = match column {
                Partition::Year => PathValue::Number(year.unsigned_abs()),
                Partition::Month => PathValue::Number(month),
                Partition::Day => PathValue::Number(day),
                Partition::Text { .. } => {
                    let value = texts.next().filter(|(number, _)| **number != 0).map(|(number, all)| all.get(*number));
                    PathValue::Text(value.unwrap_or_default())
                }
            };
            (column.name(), value)
        });
        PartitionPath::new(columns)
    }

    /// The path of a partition that [`Partitions::find`] returned.
    ///
    /// # Panics
    /// If it is the number of anything else.
    pub(crate) fn path_of(&self, partition: PartitionId) -> &PartitionPath {
        match &self.paths[partition as usize] {
            Path::Built(path) => path,
            Path::NotBuilt | Path::TooLong => panic!("{partition} is not the number of a partition"),
        }
    }

    /// The partitions that were found for the first time since the last call.
    pub(crate) fn take_fresh(&mut self) -> Vec<PartitionId> {
        std::mem::take(&mut self.fresh)
    }

    pub(crate) fn memory(&self) -> usize {
        self.pairs.slots.len() * 16
            + self
                .paths
                .iter()
                .map(|path| size_of::<Path>() + if let Path::Built(path) = path { path.as_str().len() } else { 0 })
                .sum::<usize>()
    }
}

/// A map from pairs of numbers to numbers.
#[derive(Debug, Default)]
struct PairMap {
    /// Open addressing: (pair, number plus one); 0 is empty.
    slots: Vec<(u64, u32)>,
    len: usize,
}

impl PairMap {
    /// The number of a pair, and whether the pair is new. A new pair gets the number `next`.
    #[inline]
    fn get_or_insert(&mut self, pair: u64, next: u32) -> (u32, bool) {
        if self.len * 2 >= self.slots.len() {
            self.grow();
        }
        let at = self.place(pair);
        match &mut self.slots[at] {
            (_, 0) => {
                self.slots[at] = (pair, next + 1);
                self.len += 1;
                (next, true)
            }
            (_, number) => (*number - 1, false),
        }
    }

    #[inline]
    fn place(&self, pair: u64) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = (pair.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as usize & mask;
        loop {
            match self.slots[at] {
                (_, 0) => return at,
                (known, _) if known == pair => return at,
                _ => at = (at + 1) & mask,
            }
        }
    }

    #[cold]
    fn grow(&mut self) {
        let size = (self.slots.len() * 2).max(64);
        let old = std::mem::replace(&mut self.slots, vec![(0, 0); size]);
        for (pair, number) in old.into_iter().filter(|(_, number)| *number != 0) {
            let at = self.place(pair);
            self.slots[at] = (pair, number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::parse_date;

    #[test]
    fn rows_of_one_month_and_type_share_a_partition() {
        let columns = [Partition::Text { name: "type".into(), leaf: 3 }, Partition::Year, Partition::Month];
        let mut partitions = Partitions::new(&columns);
        let mut types = Interner::new(1);
        let (skills, _) = types.intern(b"skills");
        let (odd, _) = types.intern(b"a/b=c d");
        let mut find = |day: &str, kind: u32| {
            let day = parse_date(day.as_bytes()).unwrap();
            let found = partitions.find(day, [kind].into_iter(), &[&types]).unwrap();
            (found, partitions.path_of(found).to_string())
        };
        let first = find("2025-01-13", skills);
        assert_eq!(first.1, "type=skills/year=2025/month=01");
        assert_eq!(find("2025-01-31", skills), first);
        assert_eq!(find("2025-02-01", skills).1, "type=skills/year=2025/month=02");
        assert_eq!(find("2025-01-13", odd).1, "type=a%2Fb%3Dc d/year=2025/month=01");
        assert_eq!(find("2025-01-13", 0).1, "type=__HIVE_DEFAULT_PARTITION__/year=2025/month=01");
        assert_eq!(find("2025-01-01", skills), first);
    }

    #[test]
    fn two_text_columns_make_a_partition_of_each_pair() {
        let text = |name: &str| Partition::Text { name: name.into(), leaf: 0 };
        let mut partitions = Partitions::new(&[text("a"), Partition::Day, text("b")]);
        let mut values = Interner::new(1);
        let numbers: Vec<u32> = (0..40).map(|n| values.intern(format!("v{n}").as_bytes()).0).collect();
        let mut seen = std::collections::HashMap::new();
        for day in 0..5 {
            for &a in &numbers {
                for &b in &numbers {
                    let found = partitions.find(day, [a, b].into_iter(), &[&values, &values]).unwrap();
                    let path = partitions.path_of(found).to_string();
                    assert_eq!(path, format!("a=v{}/day={:02}/b=v{}", a - 1, day + 1, b - 1));
                    assert!(seen.insert(found, path).is_none());
                }
            }
        }
        assert_eq!(seen.len(), 5 * 40 * 40);
    }

    #[test]
    fn a_dataset_may_be_partitioned_by_the_day_alone_and_a_long_value_has_no_partition() {
        let mut days = Partitions::new(&[Partition::Day]);
        let first = days.find(0, std::iter::empty(), &[]).unwrap();
        assert_eq!(days.find(0, std::iter::empty(), &[]), Some(first));
        assert_ne!(days.find(1, std::iter::empty(), &[]), Some(first));
        let mut texts = Partitions::new(&[Partition::Text { name: "t".into(), leaf: 0 }]);
        let mut values = Interner::new(1);
        let (long, _) = values.intern(&[b'/'; 100]);
        assert_eq!(texts.find(0, [long].into_iter(), &[&values]), None);
    }
}
