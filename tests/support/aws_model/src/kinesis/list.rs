//! ListShards: filters and pages.
//!
//! Owns: which shards a filter means, and tokens. A shard was open at `t` if it was created at `t` or before and is open or
//! closed at `t` or later, as the reference of ShardFilter says. Does not own: forgetting shards (`stream`).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::api::{Error, ErrorKind, Result, ShardFilter, ShardPage};
use super::read::LIFETIME_MS;
use super::shard::{Shard, shard_name};
use super::stream::Stream;
use super::{Kinesis, State};

const RESULTS_MAX: usize = 10_000;
const RESULTS_DEFAULT: usize = 1000;

/// A listing in progress.
struct Token {
    stream: String,
    made_ms: i64,
    behind: u32,
    filter: ShardFilter,
}

impl Token {
    fn text(&self) -> String {
        let Token { stream, made_ms, behind, filter } = self;
        let (kind, value) = match filter {
            ShardFilter::FromTrimHorizon => ("from-horizon", String::new()),
            ShardFilter::AtTrimHorizon => ("at-horizon", String::new()),
            ShardFilter::AtLatest => ("at-latest", String::new()),
            ShardFilter::AtTimestamp(at_ms) => ("at", at_ms.to_string()),
            ShardFilter::FromTimestamp(at_ms) => ("from", at_ms.to_string()),
            ShardFilter::AfterShardId(shard) => ("after", shard.clone()),
        };
        STANDARD.encode(format!("shards/{stream}/{made_ms}/{behind}/{kind}/{value}"))
    }

    fn parse(text: &str) -> Option<Self> {
        let bytes = STANDARD.decode(text).ok()?;
        let parts: Vec<&str> = std::str::from_utf8(&bytes).ok()?.split('/').collect();
        let ["shards", stream, made_ms, behind, kind, value] = parts[..] else { return None };
        let filter = match kind {
            "from-horizon" => ShardFilter::FromTrimHorizon,
            "at-horizon" => ShardFilter::AtTrimHorizon,
            "at-latest" => ShardFilter::AtLatest,
            "at" => ShardFilter::AtTimestamp(value.parse().ok()?),
            "from" => ShardFilter::FromTimestamp(value.parse().ok()?),
            "after" => ShardFilter::AfterShardId(value.to_owned()),
            _ => return None,
        };
        let (made_ms, behind) = (made_ms.parse().ok()?, behind.parse().ok()?);
        Some(Token { stream: stream.to_owned(), made_ms, behind, filter })
    }
}

impl Kinesis {
    /// The first page of a stream's shards: up to `limit` of them (default 1,000), after `after` if given.
    ///
    /// # Errors
    /// If there is no such stream, or the filter has no valid time or shard.
    pub fn list_shards(
        &self,
        stream: &str,
        filter: &ShardFilter,
        after: Option<&str>,
        limit: Option<usize>,
    ) -> Result<ShardPage> {
        self.look(|state, now_ms| {
            let behind = after.map(number).transpose()?;
            state.list(stream, filter, behind, limit, now_ms)
        })
    }

    /// The page of a token.
    ///
    /// # Errors
    /// If the token is malformed or older than 300 s, or the stream is gone.
    pub fn list_more_shards(&self, token: &str, limit: Option<usize>) -> Result<ShardPage> {
        self.look(|state, now_ms| {
            let token = Token::parse(token).ok_or_else(|| Error::argument("Invalid NextToken."))?;
            if now_ms - token.made_ms > LIFETIME_MS {
                return Err(Error::new(ErrorKind::ExpiredNextToken, "NextToken has expired."));
            }
            state.list(&token.stream, &token.filter, Some(token.behind), limit, now_ms)
        })
    }
}

impl State {
    fn list(
        &mut self,
        name: &str,
        filter: &ShardFilter,
        behind: Option<u32>,
        limit: Option<usize>,
        now_ms: i64,
    ) -> Result<ShardPage> {
        let limit = limit.unwrap_or(RESULTS_DEFAULT);
        if !(1..=RESULTS_MAX).contains(&limit) {
            return Err(Error::constraint(limit, "maxResults", "have value between 1 and 10000"));
        }
        let limit = self.settings.shards_page_max.map_or(limit, |most| limit.min(most.get()));
        let stream = self.stream(name, now_ms)?;
        let meant = meant(stream, filter, now_ms)?;
        let mut listed =
            stream.shards.values().filter(|shard| behind.is_none_or(|last| shard.number > last) && meant(shard));
        let page: Vec<&Shard> = listed.by_ref().take(limit).collect();
        let next_token = listed.next().and(page.last()).map(|last| {
            Token { stream: name.to_owned(), made_ms: now_ms, behind: last.number, filter: filter.clone() }.text()
        });
        Ok(ShardPage { shards: page.into_iter().map(Shard::info).collect(), next_token })
    }
}

type Meant = Box<dyn Fn(&Shard) -> bool>;

fn meant(stream: &Stream, filter: &ShardFilter, now_ms: i64) -> Result<Meant> {
    let horizon_ms = stream.horizon_ms(now_ms);
    let past = |at_ms: i64| {
        if at_ms > now_ms {
            return Err(Error::argument("Timestamp in ShardFilter is in the future."));
        }
        Ok(at_ms.max(horizon_ms))
    };
    let closed_from = |shard: &Shard, at_ms: i64| shard.closed_ms.is_none_or(|closed_ms| closed_ms >= at_ms);
    Ok(match filter {
        ShardFilter::FromTrimHorizon => Box::new(|_| true),
        ShardFilter::AtTrimHorizon => {
            Box::new(move |shard| shard.created_ms <= horizon_ms && closed_from(shard, horizon_ms))
        }
        ShardFilter::AtLatest => Box::new(Shard::is_open),
        ShardFilter::AtTimestamp(at_ms) => {
            let at_ms = past(*at_ms)?;
            Box::new(move |shard| shard.created_ms <= at_ms && closed_from(shard, at_ms))
        }
        ShardFilter::FromTimestamp(at_ms) => {
            let at_ms = past(*at_ms)?;
            Box::new(move |shard| closed_from(shard, at_ms))
        }
        ShardFilter::AfterShardId(after) => {
            let after = number(after)?;
            Box::new(move |shard| shard.number > after)
        }
    })
}

/// The number in a shard's name; the shard need not exist.
fn number(shard: &str) -> Result<u32> {
    let parsed = shard.strip_prefix("shardId-").and_then(|digits| digits.parse().ok());
    parsed
        .filter(|parsed| shard_name(*parsed) == shard)
        .ok_or_else(|| Error::argument(format!("Invalid shard id {shard}.")))
}
