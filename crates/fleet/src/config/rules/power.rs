//! Supplies, what they feed, and boards and parts that must be known.

use std::collections::BTreeMap;

use super::{Rules, suggestion};
use crate::config::Supply;
use crate::config::document::Path;
use crate::hardware;

impl<'a> Rules<'a> {
    pub(super) fn power(&mut self) {
        let at = Path::default().key("power").key("supplies");
        let supplies = &self.cluster.power.supplies;
        for (position, supply) in supplies.iter().enumerate() {
            let at = at.item(position);
            let watts = [Some(supply.watts), supply.watts_per_port];
            if watts.into_iter().flatten().any(|watts| watts <= 0.0) {
                self.note(&at, format!("the supply {} gives no power", supply.name));
            }
            if supplies[..position].iter().any(|other| other.name == supply.name) {
                self.note(&at.key("name"), format!("two supplies have the name {}", supply.name));
            }
        }
        let mut ports: BTreeMap<&str, &str> = BTreeMap::new();
        for (position, board) in self.cluster.boards.iter().enumerate() {
            let Some(fed) = board.powered_by.as_deref() else { continue };
            let at = Path::default().key("boards").item(position).key("poweredBy");
            if let Some(other) = ports.insert(fed, &board.name)
                && fed.contains('/')
            {
                self.note(&at, format!("{other} is fed from the port {fed}, too"));
            }
            self.fed(fed, supplies, &at);
        }
    }

    /// Models and parts must be known, or the plan would leave them out without a word.
    pub(super) fn hardware(&mut self) {
        let root = Path::default();
        let mut named: Vec<(Path, &str, bool)> = Vec::new();
        let parts = |at: Path, list: &'a [String]| {
            let items = list.iter().enumerate();
            items.map(|(i, part)| (at.item(i), part.as_str(), false)).collect::<Vec<_>>()
        };
        for (position, board) in self.cluster.boards.iter().enumerate() {
            let at = root.key("boards").item(position);
            named.extend(board.model.iter().map(|model| (at.key("model"), model.as_str(), true)));
            named.extend(parts(at.key("parts"), &board.parts));
        }
        let power = root.key("power");
        for (position, supply) in self.cluster.power.supplies.iter().enumerate() {
            named.extend(parts(power.key("supplies").item(position).key("parts"), &supply.parts));
        }
        named.extend(parts(power.key("parts"), &self.cluster.power.parts));
        for (at, name, is_board) in named {
            if hardware::find(self.cluster, name).is_some() {
                continue;
            }
            let own = self.cluster.hardware.keys().map(String::as_str);
            let table = hardware::TABLE.iter().filter(|known| known.is_board() == is_board);
            let known = own.chain(table.map(|known| known.name));
            let otherwise = "`coracle plan --models` lists those that are known; describe others \
                             under `hardware`";
            let sort = if is_board { "model" } else { "part" };
            let hint = suggestion(name, known, otherwise);
            self.hinted(&at, format!("no {sort} {name:?} is known"), hint);
        }
        for (name, own) in &self.cluster.hardware {
            let at = root.key("hardware").key(name);
            if let Some(memory) = &own.memory {
                self.size(memory, &at.key("memory"));
            }
            if own.average_watts < 0.0 || own.maximum_watts < own.average_watts {
                self.note(&at, format!("{name} takes more on average than at the most"));
            }
        }
    }

    fn fed(&mut self, fed: &str, supplies: &[Supply], at: &Path) {
        let (name, port) = match fed.split_once('/') {
            Some((name, port)) => (name, Some(port)),
            None => (fed, None),
        };
        let Some(supply) = supplies.iter().find(|supply| supply.name == name) else {
            let names = supplies.iter().map(|supply| supply.name.as_str());
            let hint = suggestion(name, names, "name it under `power.supplies`");
            return self.hinted(at, format!("there is no supply {name:?}"), hint);
        };
        let Some(port) = port else { return };
        let number = port.parse::<u32>().ok().filter(|number| *number > 0);
        match (number, supply.ports) {
            (None, _) => self.note(at, format!("{port:?} is no port; they are counted from 1")),
            (Some(number), Some(ports)) if number > ports => {
                self.note(at, format!("{name} has {ports} ports, and {number} is none of them"));
            }
            _ => {}
        }
    }
}
