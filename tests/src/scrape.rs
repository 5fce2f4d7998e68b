//! What Prometheus would see: metrics asked for by HTTP, in OpenMetrics' text form.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const ANSWER: Duration = Duration::from_secs(10);

/// One answer of an endpoint.
#[derive(Debug, Clone, Default)]
pub struct Scrape {
    /// All of it.
    pub text: String,
    families: BTreeMap<String, Family>,
    samples: BTreeMap<Series, f64>,
}

/// Name and labels of a sample.
type Series = (String, BTreeMap<String, String>);

#[derive(Debug, Clone, Default)]
struct Family {
    kind: String,
    unit: String,
    help: String,
}

/// An answer to a request by HTTP/1.1.
#[derive(Debug)]
pub struct HttpAnswer {
    /// Status.
    pub status: u16,
    /// Header, in small letters.
    pub head: String,
    /// What follows it, without the framing of chunks.
    pub body: Vec<u8>,
}

/// Sends a request by HTTP/1.1 over a connection of its own, and reads the answer.
pub async fn http(
    address: &str,
    method: &str,
    path: &str,
    headers: &[&str],
    body: &[u8],
) -> Result<HttpAnswer> {
    let address = address.trim_start_matches("http://");
    let asked = async {
        let mut stream = TcpStream::connect(address).await?;
        let mut request = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n");
        for header in headers {
            request += &format!("{header}\r\n");
        }
        request += &format!("content-length: {}\r\n\r\n", body.len());
        stream.write_all(request.as_bytes()).await?;
        stream.write_all(body).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        anyhow::Ok(answer)
    };
    let answer = timeout(ANSWER, asked)
        .await
        .with_context(|| format!("{address} did not answer within {ANSWER:?}"))??;
    let end = answer
        .windows(4)
        .position(|w| w == b"\r\n\r\n")
        .context("the answer has no head")?;
    let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok());
    let rest = &answer[end + 4..];
    Ok(HttpAnswer {
        status: status.with_context(|| format!("no status in {head:?}"))?,
        body: match head.contains("transfer-encoding: chunked") {
            true => unchunked(rest)?,
            false => rest.to_vec(),
        },
        head,
    })
}

fn unchunked(mut rest: &[u8]) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest
            .windows(2)
            .position(|w| w == b"\r\n")
            .context("a chunk has no size")?;
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end])?.trim(), 16)?;
        rest = &rest[end + 2..];
        if size == 0 {
            return Ok(body);
        }
        body.extend_from_slice(rest.get(..size).context("a chunk is cut short")?);
        rest = rest.get(size + 2..).context("a chunk has no end")?;
    }
}

impl Scrape {
    /// Asks `http://ADDRESS/metrics`.
    pub async fn of(address: &str) -> Result<Self> {
        let answer = http(address, "GET", "/metrics", &[], b"").await?;
        ensure!(answer.status == 200, "{}", answer.head);
        ensure!(
            answer.head.contains("content-type: application/openmetrics-text"),
            "{}",
            answer.head
        );
        Self::parse(String::from_utf8(answer.body)?)
    }

    /// Reads the text, and checks it against the rules of OpenMetrics that a reader relies on.
    fn parse(text: String) -> Result<Self> {
        let mut scrape = Self::default();
        let body = text
            .strip_suffix("# EOF\n")
            .context("the text does not end with `# EOF`")?;
        for line in body.lines() {
            if let Some(rest) = line.strip_prefix("# ") {
                let mut words = rest.splitn(3, ' ');
                let (what, name) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
                let value = words.next().unwrap_or_default().to_owned();
                let family = scrape.families.entry(name.to_owned()).or_default();
                let field = match what {
                    "TYPE" => &mut family.kind,
                    "UNIT" => &mut family.unit,
                    "HELP" => &mut family.help,
                    _ => bail!("what is this: {line}"),
                };
                ensure!(field.is_empty(), "said twice: {line}");
                *field = value;
            } else {
                let (series, value) = sample(line).with_context(|| format!("no sample: {line}"))?;
                ensure!(
                    scrape.samples.insert(series, value).is_none(),
                    "there twice: {line}"
                );
            }
        }
        scrape.text = text;
        scrape.conventions()?;
        Ok(scrape)
    }

    /// Every family says what it is; names end in the unit, and those of counters' samples in `_total`.
    fn conventions(&self) -> Result<()> {
        for (name, family) in &self.families {
            ensure!(
                !family.kind.is_empty() && !family.help.is_empty(),
                "{name} has no type or help"
            );
            let unit = &family.unit;
            ensure!(
                unit.is_empty() || name.ends_with(&format!("_{unit}")),
                "{name} does not end in its unit {unit}"
            );
            for unit in ["seconds", "bytes", "messages", "ratio"] {
                ensure!(
                    !name.ends_with(unit) || family.unit == unit,
                    "{name} does not say that its unit is {unit}"
                );
            }
            ensure!(!name.ends_with("_total"), "{name}: only samples end in _total");
        }
        for (name, _) in self.samples.keys() {
            let (family, kind) = self
                .family(name)
                .with_context(|| format!("{name} belongs to no family"))?;
            let suffix = &name[family.len()..];
            let suffixes: &[&str] = match kind {
                "counter" => &["_total"],
                "histogram" => &["_bucket", "_sum", "_count"],
                "gauge" => &[""],
                other => bail!("{name} is a {other}"),
            };
            ensure!(suffixes.contains(&suffix), "{name} is no sample of a {kind}");
        }
        Ok(())
    }

    /// The family that a sample of this name belongs to, and its type.
    fn family(&self, sample: &str) -> Option<(&str, &str)> {
        ["", "_total", "_bucket", "_sum", "_count"]
            .into_iter()
            .filter_map(|suffix| sample.strip_suffix(suffix))
            .find_map(|name| self.families.get_key_value(name))
            .map(|(name, family)| (name.as_str(), family.kind.as_str()))
    }

    /// Names of all families.
    pub fn families(&self) -> BTreeSet<String> {
        self.families.keys().cloned().collect()
    }

    /// Samples of that name whose labels have all of these values.
    pub fn all(&self, name: &str, labels: &[(&str, &str)]) -> Vec<f64> {
        let has = |present: &BTreeMap<String, String>| {
            labels
                .iter()
                .all(|(key, value)| present.get(*key).is_some_and(|v| v == value))
        };
        self.samples
            .iter()
            .filter(|((n, present), _)| n == name && has(present))
            .map(|(_, value)| *value)
            .collect()
    }

    /// The one sample of that name whose labels have all of these values.
    pub fn one(&self, name: &str, labels: &[(&str, &str)]) -> Result<f64> {
        match self.all(name, labels)[..] {
            [value] => Ok(value),
            ref many => bail!("{} samples {name}{labels:?} are in\n{}", many.len(), self.text),
        }
    }

    /// Name and labels of every sample.
    pub fn series(&self) -> BTreeSet<Series> {
        self.samples.keys().cloned().collect()
    }

    /// All values that a label has.
    pub fn values(&self, label: &str) -> BTreeSet<String> {
        self.samples
            .keys()
            .filter_map(|(_, labels)| labels.get(label).cloned())
            .collect()
    }
}

/// `name{key="value",...} 1.5`; no value here has a quote or a comma in it.
fn sample(line: &str) -> Option<(Series, f64)> {
    let (series, value) = line.rsplit_once(' ')?;
    let (name, labels) = match series.split_once('{') {
        None => (series, ""),
        Some((name, labels)) => (name, labels.strip_suffix('}')?),
    };
    let pair = |pair: &str| {
        let (key, value) = pair.split_once("=\"")?;
        Some((key.to_owned(), value.strip_suffix('"')?.to_owned()))
    };
    let labels: Option<BTreeMap<_, _>> = labels.split(',').filter(|p| !p.is_empty()).map(pair).collect();
    Some(((name.to_owned(), labels?), value.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_found_by_their_labels() {
        let text = "# HELP a_bytes Size.\n# TYPE a_bytes counter\n# UNIT a_bytes bytes\n\
                    a_bytes_total{x=\"1\",y=\"2\"} 5\na_bytes_total{x=\"2\",y=\"2\"} 1.5e3\n# EOF\n";
        let scrape = Scrape::parse(text.to_owned()).unwrap();
        assert_eq!(scrape.one("a_bytes_total", &[("x", "2")]).unwrap(), 1500.0);
        assert_eq!(scrape.all("a_bytes_total", &[("y", "2")]).len(), 2);
        assert!(scrape.one("a_bytes_total", &[]).is_err());
        assert_eq!(scrape.values("x").len(), 2);
    }

    #[test]
    fn what_breaks_the_rules_is_refused() {
        for text in [
            "# HELP a A.\n# TYPE a counter\na 1\n# EOF\n",
            "# HELP a_seconds A.\n# TYPE a_seconds gauge\na_seconds 1\n# EOF\n",
            "# HELP a A.\n# TYPE a gauge\na 1\n",
            "# HELP a A.\n# TYPE a gauge\na 1\na 2\n# EOF\n",
            "a 1\n# EOF\n",
        ] {
            assert!(Scrape::parse(text.to_owned()).is_err(), "{text}");
        }
    }
}
