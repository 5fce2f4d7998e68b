use std::collections::HashMap;

/// Why a task, or a connector, is not where it should be.
#[derive(Debug, Clone, PartialEq)]
pub struct Reason {
    /// The connector.
    pub connector: String,
    /// The task; None: the whole connector.
    pub task: Option<u32>,
    /// UPPER_SNAKE.
    pub code: &'static str,
    /// A sentence for people.
    pub text: String,
}

/// Reasons by connector and task: what views show for tasks that no agent holds.
#[derive(Debug, Clone, Default)]
pub struct Reasons(HashMap<String, HashMap<Option<u32>, Reason>>);

impl Reasons {
    /// The reason why a task is not where it should be.
    pub fn task(&self, connector: &str, task: u32) -> Option<&Reason> {
        self.0.get(connector)?.get(&Some(task))
    }

    /// The reason that concerns the connector as a whole.
    pub fn connector(&self, connector: &str) -> Option<&Reason> {
        self.0.get(connector)?.get(&None)
    }
}

/// Of several reasons for one task the first counts.
impl FromIterator<Reason> for Reasons {
    fn from_iter<T: IntoIterator<Item = Reason>>(reasons: T) -> Self {
        let mut map: HashMap<String, HashMap<Option<u32>, Reason>> = HashMap::new();
        for r in reasons {
            map.entry(r.connector.clone())
                .or_default()
                .entry(r.task)
                .or_insert(r);
        }
        Self(map)
    }
}
