//! Models of the protocols, explored to the last interleaving within small bounds.

mod publish;
mod transaction;

use std::fmt::Debug;
use std::hash::Hash;
use std::time::Duration;

use stateright::{Checker, HasDiscoveries, Model};

/// Many times what an exploration takes alone on two cores; one that is cut short fails.
const AT_MOST: Duration = Duration::from_secs(240);

/// What the checker asks of a model.
trait Explorable:
    Model<
        State: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
        Action: Clone + Debug + PartialEq,
    > + Send
    + Sync
    + 'static
{
}

impl Explorable for publish::Publish {}
impl Explorable for transaction::Transactions {}

fn explore<M: Explorable>(model: M, until: HasDiscoveries) -> impl Checker<M> {
    let checker = model.checker().timeout(AT_MOST).finish_when(until);
    checker.threads(2).spawn_bfs().join()
}

/// Every state that can be reached has all properties.
fn holds<M: Explorable>(model: M) {
    let checker = explore(model, HasDiscoveries::All);
    for (name, path) in checker.discoveries() {
        if name.starts_with("no") {
            eprintln!("{name}: {:?}", path.into_actions());
        }
    }
    assert!(checker.is_done(), "it took too long");
    checker.assert_properties();
}

/// Whether an event can be lost, doubled or seen early.
fn finds<M: Explorable>(model: M) -> bool {
    let checker = explore(model, HasDiscoveries::AnyFailures);
    let found = checker.discoveries();
    found.keys().any(|name| name.starts_with("no event"))
}
