//! What the agent's pages say: an HTTP client for one request, and the rows of `/metrics`.
//!
//! Owns no expectation. Invariant: rows are read by their labels, whatever order they stand in.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

use bulkhead::lab::Namespace;

/// Where the agent of a test listens, in its node's namespace.
pub const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9180);
const LIMIT: Duration = Duration::from_secs(5);

/// An answer: status and body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Of the first line.
    pub status: u16,
    /// What follows the head.
    pub body: String,
}

/// Asks the agent of a node for a page.
///
/// # Errors
/// When nobody listens (yet), or the answer is none.
pub fn get(node: &Namespace, path: &str) -> io::Result<Answer> {
    let connect = || TcpStream::connect_timeout(&ADDRESS, LIMIT);
    let mut stream = node.enter(connect).map_err(io::Error::other)??;
    stream.set_read_timeout(Some(LIMIT))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or(io::ErrorKind::InvalidData)?;
    Ok(Answer { status, body: body.to_owned() })
}

/// Pod, direction and reason of a row of `bulkhead_packets_total`.
pub type Denial = (String, String, String);

/// A row's name and labels.
type Series = (String, BTreeMap<String, String>);

/// One look at `/metrics`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page(BTreeMap<Series, f64>);

impl Page {
    /// Reads the text of a page; comments are left out.
    ///
    /// # Panics
    /// On a line that is no row.
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        Self(lines.map(|line| row(line).unwrap_or_else(|| panic!("no row: {line:?}"))).collect())
    }

    /// A row's value.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        self.0.get(&(name.to_owned(), labels.collect())).copied()
    }

    /// How many packets were denied, by row; rows at zero are left out.
    pub fn denied(&self) -> BTreeMap<Denial, u64> {
        let mut denied = BTreeMap::new();
        for ((name, labels), value) in &self.0 {
            let label = |key: &str| labels.get(key).cloned().unwrap_or_default();
            if name == "bulkhead_packets_total" && label("verdict") == "deny" && *value > 0.0 {
                let row = (label("pod"), label("direction"), label("reason"));
                *denied.entry(row).or_default() += *value as u64;
            }
        }
        denied
    }

    /// By how much the rows of [`Page::denied`] grew since an earlier page.
    pub fn denied_since(&self, before: &Self) -> BTreeMap<Denial, u64> {
        let before = before.denied();
        let grown = self.denied().into_iter().map(|(row, packets)| {
            let more = packets - before.get(&row).copied().unwrap_or(0);
            (row, more)
        });
        grown.filter(|(_, more)| *more > 0).collect()
    }
}

/// `name{key="value",...} number`. No value that a test looks at holds quotes or commas.
fn row(line: &str) -> Option<(Series, f64)> {
    let (series, value) = line.rsplit_once(' ')?;
    let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
    let labels = labels.strip_suffix('}')?.split("\",").filter(|label| !label.is_empty());
    let labels = labels.map(|label| {
        let (key, value) = label.split_once("=\"")?;
        Some((key.to_owned(), value.trim_end_matches('"').to_owned()))
    });
    Some(((name.to_owned(), labels.collect::<Option<_>>()?), value.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_by_their_labels() {
        let page = |packets| {
            let labels = r#"namespace="a",pod="b",direction="ingress",verdict="deny",reason="c""#;
            let text = format!(
                "# HELP x y\nbulkhead_source_available 1\nbulkhead_packets_total{{{labels}}} \
                 {packets}\nlatency_bucket{{le=\"0.5\"}} 2\n# EOF\n"
            );
            Page::parse(&text)
        };
        let (before, after) = (page(3), page(5));
        assert_eq!(before.value("bulkhead_source_available", &[]), Some(1.0));
        assert_eq!(before.value("latency_bucket", &[("le", "0.5")]), Some(2.0));
        assert_eq!(before.value("latency_bucket", &[]), None);
        let row = || ["b", "ingress", "c"].map(str::to_owned).into();
        assert_eq!(before.denied(), BTreeMap::from([(row(), 3)]));
        assert_eq!(after.denied_since(&before), BTreeMap::from([(row(), 2)]));
        assert_eq!(after.denied_since(&after), BTreeMap::new());
    }
}
