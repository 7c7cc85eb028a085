//! What a request asks for: path and parameters to one typed route. Decides nothing about how it is answered.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic
)]

use thiserror::Error;

use crate::selector::{Selector, SelectorError};
use crate::windows::{ChoiceError, MAX_MERGED, WindowChoice};

/// Parameters of a request; more are a mistake.
const MAX_PARAMETERS: usize = 16;
/// Windows listed when not said otherwise: twenty minutes of ten-second windows.
const DEFAULT_LISTED: usize = 120;

/// What is asked for.
#[derive(Clone, Debug)]
pub(crate) enum Route {
    /// A file of the page.
    Asset(Asset),
    /// The windows in the store, newest last.
    Windows {
        /// At most so many.
        limit: usize,
    },
    /// Own cost, losses, readiness.
    Status,
    /// The call tree of some windows.
    Flamegraph {
        /// Which windows.
        windows: WindowChoice,
        /// Which samples.
        selector: Selector,
        /// Whether threads are a level of their own below their process.
        threads: bool,
    },
    /// The processes of some windows.
    Processes {
        /// Which windows.
        windows: WindowChoice,
    },
    /// The profile of some windows as pprof.
    Download {
        /// Which windows.
        windows: WindowChoice,
        /// Which samples.
        selector: Selector,
    },
    /// The next profile with samples that the selector takes.
    Query {
        /// Which samples.
        selector: Selector,
        /// As a page to read instead of a file.
        debug: bool,
    },
    /// All metrics.
    Metrics,
    /// Whether samples flow.
    Ready,
    /// Whether the viewer serves.
    Healthy,
}

/// The embedded files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asset {
    Page,
    Style,
    Script(Script),
    Icon,
}

/// The page's scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Script {
    /// Fetches, keeps the state, fills the text parts.
    Page,
    /// Draws the flame graph.
    Flamegraph,
    /// Draws the windows.
    Timeline,
}

impl Script {
    /// The script's text.
    pub(crate) fn content(self) -> &'static str {
        match self {
            Self::Page => include_str!("../assets/page.js"),
            Self::Flamegraph => include_str!("../assets/flamegraph.js"),
            Self::Timeline => include_str!("../assets/timeline.js"),
        }
    }
}

/// Why a request has no route.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum RouteError {
    /// No such path.
    #[error("no such page; see / for the profile, /metrics, /ready, /healthy, /query")]
    NotFound,
    /// An escape in a parameter isn't `%` and two hexadecimal digits, or no UTF-8 comes out.
    #[error("parameter {0:?} is not valid percent-encoded UTF-8")]
    Escape(String),
    /// A parameter of that name isn't known there.
    #[error("unknown parameter {0:?}")]
    Unknown(String),
    /// More than [`MAX_PARAMETERS`].
    #[error("more than {MAX_PARAMETERS} parameters")]
    TooMany,
    /// A parameter's value isn't one of its kind.
    #[error("{name}: expected {expected}, found {found:?}")]
    Value {
        /// Which parameter.
        name: &'static str,
        /// What would have been right.
        expected: &'static str,
        /// What was there.
        found: String,
    },
    /// The query parameter is missing.
    #[error("parameter query is missing; example: /query?query={{comm=\"postgres\"}}")]
    NoQuery,
    /// A malformed selector.
    #[error(transparent)]
    Selector(#[from] SelectorError),
    /// A malformed choice of windows.
    #[error(transparent)]
    Windows(#[from] ChoiceError),
}

impl Route {
    /// The route of a path and the text behind its `?`.
    ///
    /// # Errors
    /// [`RouteError`]; all but [`RouteError::NotFound`] are the client's mistake in a parameter.
    pub(crate) fn parse(path: &str, query: &str) -> Result<Self, RouteError> {
        let route = match path {
            "/" => return Ok(Self::Asset(Asset::Page)),
            "/style.css" => return Ok(Self::Asset(Asset::Style)),
            "/page.js" => return Ok(Self::Asset(Asset::Script(Script::Page))),
            "/flamegraph.js" => return Ok(Self::Asset(Asset::Script(Script::Flamegraph))),
            "/timeline.js" => return Ok(Self::Asset(Asset::Script(Script::Timeline))),
            "/favicon.ico" | "/favicon.svg" => return Ok(Self::Asset(Asset::Icon)),
            "/status" => return Ok(Self::Status),
            "/metrics" => return Ok(Self::Metrics),
            "/ready" => return Ok(Self::Ready),
            "/healthy" => return Ok(Self::Healthy),
            "/windows" | "/flamegraph" | "/processes" | "/download" | "/query" => path,
            _ => return Err(RouteError::NotFound),
        };
        let mut parameters = Parameters::parse(query)?;
        let parsed = match route {
            "/windows" => Self::Windows {
                limit: parameters.limit()?,
            },
            "/flamegraph" => Self::Flamegraph {
                windows: parameters.windows()?,
                selector: parameters.samples()?,
                threads: parameters.flag("threads")?,
            },
            "/processes" => Self::Processes {
                windows: parameters.windows()?,
            },
            "/download" => Self::Download {
                windows: parameters.windows()?,
                selector: parameters.samples()?,
            },
            _ => Self::Query {
                selector: Selector::parse(&parameters.take("query").ok_or(RouteError::NoQuery)?)?,
                debug: parameters.flag("debug")?,
            },
        };
        parameters.finish()?;
        Ok(parsed)
    }
}

struct Parameters {
    values: Vec<(String, String)>,
}

impl Parameters {
    fn parse(query: &str) -> Result<Self, RouteError> {
        let mut values = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            if values.len() >= MAX_PARAMETERS {
                return Err(RouteError::TooMany);
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            values.push((unescape(name)?, unescape(value)?));
        }
        Ok(Self { values })
    }

    /// The value of a parameter; the first one where it occurs twice, so that the second is found unknown.
    fn take(&mut self, name: &str) -> Option<String> {
        let index = self.values.iter().position(|(found, _)| found == name)?;
        Some(self.values.remove(index).1)
    }

    fn finish(self) -> Result<(), RouteError> {
        match self.values.into_iter().next() {
            Some((name, _)) => Err(RouteError::Unknown(cut(&name))),
            None => Ok(()),
        }
    }

    fn flag(&mut self, name: &'static str) -> Result<bool, RouteError> {
        match self.take(name).as_deref() {
            None | Some("0" | "false") => Ok(false),
            Some("1" | "true" | "") => Ok(true),
            Some(found) => Err(RouteError::Value {
                name,
                expected: "0 or 1",
                found: cut(found),
            }),
        }
    }

    fn limit(&mut self) -> Result<usize, RouteError> {
        let Some(found) = self.take("limit") else {
            return Ok(DEFAULT_LISTED);
        };
        found
            .parse()
            .ok()
            .filter(|limit| (1..=MAX_MERGED).contains(limit))
            .ok_or_else(|| RouteError::Value {
                name: "limit",
                expected: "1 to 360",
                found: cut(&found),
            })
    }

    fn windows(&mut self) -> Result<WindowChoice, RouteError> {
        match self.take("window") {
            None => Ok(WindowChoice::Last(1)),
            Some(text) => Ok(WindowChoice::parse(&text)?),
        }
    }

    /// The samples of `process=pid:N`, `process=comm:NAME` and `query={...}`; all without them.
    fn samples(&mut self) -> Result<Selector, RouteError> {
        let process = match self.take("process") {
            None => Selector::default(),
            Some(text) => match text.split_once(':') {
                Some((label @ ("pid" | "comm"), value)) => Selector::equal(label, value),
                _ => {
                    return Err(RouteError::Value {
                        name: "process",
                        expected: "pid:NUMBER or comm:NAME",
                        found: cut(&text),
                    });
                }
            },
        };
        match self.take("query") {
            None => Ok(process),
            Some(text) => Ok(process.and(Selector::parse(&text)?)),
        }
    }
}

/// Decodes `application/x-www-form-urlencoded` text.
fn unescape(text: &str) -> Result<String, RouteError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => rest
                .next()
                .and_then(hex)
                .zip(rest.next().and_then(hex))
                .map(|(high, low)| high << 4 | low)
                .ok_or_else(|| RouteError::Escape(cut(text)))?,
            byte => byte,
        });
    }
    String::from_utf8(bytes).map_err(|_not_utf8| RouteError::Escape(cut(text)))
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

fn cut(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn error(path: &str, query: &str) -> RouteError {
        Route::parse(path, query).expect_err(query)
    }

    #[test]
    fn every_path_has_its_route() {
        assert!(matches!(
            Route::parse("/", ""),
            Ok(Route::Asset(Asset::Page))
        ));
        assert!(matches!(
            Route::parse("/style.css", "v=1"),
            Ok(Route::Asset(Asset::Style))
        ));
        assert!(matches!(
            Route::parse("/windows", ""),
            Ok(Route::Windows { limit: 120 })
        ));
        assert!(matches!(
            Route::parse("/windows", "limit=7"),
            Ok(Route::Windows { limit: 7 })
        ));
        assert!(matches!(Route::parse("/metrics", ""), Ok(Route::Metrics)));
        assert!(matches!(Route::parse("/ready", ""), Ok(Route::Ready)));
        assert!(matches!(Route::parse("/healthy", ""), Ok(Route::Healthy)));
        assert!(matches!(
            Route::parse("/flamegraph", ""),
            Ok(Route::Flamegraph { windows: WindowChoice::Last(1), threads: false, selector }) if selector.takes_all()
        ));
        assert!(matches!(
            Route::parse("/flamegraph", "window=last:3&process=comm:a%20b&threads=1"),
            Ok(Route::Flamegraph { windows: WindowChoice::Last(3), threads: true, selector })
                if selector.to_string() == r#"{comm="a b"}"#
        ));
        assert!(matches!(
            Route::parse("/download", "process=pid:42&query=%7Bthread_name%3D~%22io.*%22%7D"),
            Ok(Route::Download { selector, .. }) if selector.to_string() == r#"{pid="42",thread_name=~"io.*"}"#
        ));
        assert!(matches!(
            Route::parse("/query", r#"query={comm="x"}&debug=1"#),
            Ok(Route::Query { debug: true, .. })
        ));
    }

    #[test]
    fn mistakes_are_named() {
        assert_eq!(error("/debug/pprof/", ""), RouteError::NotFound);
        assert_eq!(error("//", ""), RouteError::NotFound);
        assert_eq!(error("/query", ""), RouteError::NoQuery);
        assert!(matches!(
            error("/query", "query=x"),
            RouteError::Selector(_)
        ));
        assert!(matches!(
            error("/query", "query=%zz"),
            RouteError::Escape(_)
        ));
        assert!(matches!(
            error("/query", "query=%ff"),
            RouteError::Escape(_)
        ));
        assert!(matches!(
            error("/query", "query={}&query={}"),
            RouteError::Unknown(_)
        ));
        assert!(matches!(
            error("/flamegraph", "window=x"),
            RouteError::Windows(_)
        ));
        assert!(matches!(
            error("/flamegraph", "process=42"),
            RouteError::Value {
                name: "process",
                ..
            }
        ));
        assert!(matches!(
            error("/flamegraph", "threads=2"),
            RouteError::Value {
                name: "threads",
                ..
            }
        ));
        assert!(matches!(
            error("/windows", "limit=0"),
            RouteError::Value { name: "limit", .. }
        ));
        assert!(matches!(
            error("/windows", "page=2"),
            RouteError::Unknown(_)
        ));
        assert_eq!(
            error("/windows", &"a&".repeat(MAX_PARAMETERS + 1)),
            RouteError::TooMany
        );
    }

    proptest! {
        #[test]
        fn any_target_is_survived(path in "/[a-z.%/]{0,20}", query in any::<String>()) {
            let _ = Route::parse(&path, &query);
            let _ = Route::parse("/query", &query);
            let _ = Route::parse("/flamegraph", &query);
        }

        #[test]
        fn escapes_come_back(text in any::<String>()) {
            let escaped: String = text.bytes().map(|byte| format!("%{byte:02x}")).collect();
            prop_assert_eq!(unescape(&escaped).unwrap(), text);
        }
    }
}
