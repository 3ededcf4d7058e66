//! The modules of each crate import one another in one direction.
//!
//! The check parses every crate of the workspace, resolves each path to the file that *defines* the
//! item (a re-export in a parent module counts as its origin), and looks for cycles in the graph
//! of files. `mod x;` is no import, and neither is what tests alone use.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use syn::{
    Attribute, Item, ItemUse, Macro, Path as SynPath, UseTree, Visibility,
    visit::{self, Visit},
};

use crate::repository;

/// A module of a crate.
#[derive(Default)]
struct Module {
    parent: Option<usize>,
    file: usize,
    names: HashMap<String, Name>,
    globs: Vec<Vec<String>>,
}

/// What a name stands for in a module.
enum Name {
    Module(usize),
    /// An item that is defined here.
    Item,
    /// An item that is imported or re-exported, by its path.
    Import(Vec<String>),
}

/// The modules of one crate and the paths that each names.
#[derive(Default)]
struct Crate {
    files: Vec<PathBuf>,
    modules: Vec<Module>,
    paths: Vec<(usize, Vec<String>)>,
}

/// For each file the files that it imports, with a name from each.
type Graph = BTreeMap<usize, BTreeMap<usize, String>>;

impl Crate {
    fn parse(root: &Path) -> Self {
        let mut parsed = Self::default();
        let folder = root.parent().expect("a file has a folder");
        parsed.add_file(root, folder, None);
        parsed
    }

    /// Adds the module in `file`, whose child modules lie in `folder`; returns its index.
    fn add_file(&mut self, file: &Path, folder: &Path, parent: Option<usize>) -> usize {
        let text = fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let syntax = syn::parse_file(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        self.files.push(file.to_owned());
        self.add_module(&syntax.items, self.files.len() - 1, folder, parent)
    }

    fn add_module(
        &mut self,
        items: &[Item],
        file: usize,
        folder: &Path,
        parent: Option<usize>,
    ) -> usize {
        let index = self.modules.len();
        self.modules.push(Module { parent, file, ..Module::default() });
        for item in items.iter().filter(|item| !is_test_only(attributes(item))) {
            match item {
                Item::Mod(child) => {
                    let name = child.ident.to_string();
                    let below = folder.join(&name);
                    let module = match &child.content {
                        Some((_, items)) => self.add_module(items, file, &below, Some(index)),
                        None => self.add_file(&module_file(folder, &name), &below, Some(index)),
                    };
                    self.modules[index].names.insert(name, Name::Module(module));
                }
                Item::Use(import) => self.add_import(index, import),
                other => {
                    if let Some(name) = defined_name(other) {
                        self.modules[index].names.entry(name).or_insert(Name::Item);
                    }
                    let mut visitor = Paths { module: index, found: &mut self.paths };
                    visitor.visit_item(other);
                }
            }
        }
        index
    }

    fn add_import(&mut self, module: usize, import: &ItemUse) {
        if import.leading_colon.is_some() {
            return;
        }
        for (name, path) in leaves(&import.tree) {
            self.paths.push((module, path.clone()));
            match name {
                // A module or an item of that name wins: `use storage_traits` next to `mod x`.
                Some(name) => {
                    self.modules[module].names.entry(name).or_insert(Name::Import(path));
                }
                None => self.modules[module].globs.push(path),
            }
        }
    }

    /// Returns the file that defines what `path` names when `module` uses it; `None` if another
    /// crate does.
    fn resolve(&self, module: usize, path: &[String], depth: usize) -> Option<usize> {
        if depth > 16 {
            return None;
        }
        let (first, rest) = path.split_first()?;
        match first.as_str() {
            "crate" => self.descend(0, rest, depth),
            "self" => self.descend(module, rest, depth),
            "super" => self.descend(self.modules[module].parent?, rest, depth),
            name if self.modules[module].names.contains_key(name) => {
                self.descend(module, path, depth)
            }
            _ => None,
        }
    }

    fn descend(&self, module: usize, path: &[String], depth: usize) -> Option<usize> {
        let here = &self.modules[module];
        let Some((first, rest)) = path.split_first() else { return Some(here.file) };
        if first == "super" {
            return self.descend(here.parent?, rest, depth);
        }
        match here.names.get(first) {
            Some(Name::Module(child)) => self.descend(*child, rest, depth),
            Some(Name::Item) => Some(here.file),
            Some(Name::Import(import)) if import.first() == Some(first) && import.len() == 1 => {
                None
            }
            Some(Name::Import(import)) => {
                let whole: Vec<_> = import.iter().chain(rest).cloned().collect();
                // An import of another crate's item is no file of this one.
                self.resolve(module, &whole, depth + 1)
            }
            None => {
                let globbed = here.globs.iter().find_map(|glob| {
                    let whole: Vec<_> = glob.iter().chain(path).cloned().collect();
                    self.resolve(module, &whole, depth + 1)
                });
                Some(globbed.unwrap_or(here.file))
            }
        }
    }

    fn graph(&self) -> Graph {
        let mut graph = Graph::new();
        for (module, path) in &self.paths {
            let from = self.modules[*module].file;
            if let Some(to) = self.resolve(*module, path, 0)
                && to != from
            {
                let name = path.join("::");
                graph.entry(from).or_default().entry(to).or_insert(name);
            }
        }
        graph
    }
}

/// Collects the paths in an item that begin in this crate.
struct Paths<'a> {
    module: usize,
    found: &'a mut Vec<(usize, Vec<String>)>,
}

impl<'ast> Visit<'ast> for Paths<'_> {
    fn visit_path(&mut self, path: &'ast SynPath) {
        if path.leading_colon.is_none() && path.segments.len() > 1 {
            let segments = path.segments.iter().map(|segment| segment.ident.to_string());
            self.found.push((self.module, segments.collect()));
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, invocation: &'ast Macro) {
        self.visit_path(&invocation.path);
        // The arguments are tokens: a path is a run of names with `::` between them.
        let text = invocation.tokens.to_string().replace(" :: ", "::");
        let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
        for word in text.split(|c| !is_part(c)).filter(|word| word.contains("::")) {
            let segments: Vec<_> = word.split("::").map(str::to_owned).collect();
            if segments.iter().all(|segment| !segment.is_empty()) {
                self.found.push((self.module, segments));
            }
        }
    }

    fn visit_visibility(&mut self, _: &'ast Visibility) {
        // `pub(in path)` names who may see an item, and imports nothing.
    }

    fn visit_item_use(&mut self, import: &'ast ItemUse) {
        // Inside a function.
        self.found.extend(leaves(&import.tree).into_iter().map(|(_, path)| (self.module, path)));
    }
}

/// Returns the imported paths of a `use`, each with the name that it gets; globs have none.
fn leaves(tree: &UseTree) -> Vec<(Option<String>, Vec<String>)> {
    fn walk(
        tree: &UseTree,
        prefix: &mut Vec<String>,
        found: &mut Vec<(Option<String>, Vec<String>)>,
    ) {
        match tree {
            UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                walk(&path.tree, prefix, found);
                prefix.pop();
            }
            UseTree::Name(name) if name.ident == "self" => {
                found.push((prefix.last().cloned(), prefix.clone()));
            }
            UseTree::Name(name) => {
                let name = name.ident.to_string();
                let path = prefix.iter().cloned().chain([name.clone()]).collect();
                found.push((Some(name), path));
            }
            UseTree::Rename(rename) => {
                let mut path = prefix.clone();
                if rename.ident != "self" {
                    path.push(rename.ident.to_string());
                }
                found.push((Some(rename.rename.to_string()), path));
            }
            UseTree::Glob(_) => found.push((None, prefix.clone())),
            UseTree::Group(group) => {
                group.items.iter().for_each(|tree| walk(tree, prefix, found));
            }
        }
    }
    let mut found = Vec::new();
    walk(tree, &mut Vec::new(), &mut found);
    found
}

fn module_file(folder: &Path, name: &str) -> PathBuf {
    let beside = folder.join(format!("{name}.rs"));
    if beside.exists() { beside } else { folder.join(name).join("mod.rs") }
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

fn is_test_only(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Path>().is_ok_and(|argument| argument.is_ident("test"))
    })
}

fn defined_name(item: &Item) -> Option<String> {
    let name = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Macro(item) => item.ident.as_ref()?,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::Type(item) => &item.ident,
        _ => return None,
    };
    Some(name.to_string())
}

/// Returns the cycles of a graph: sets of files that all reach one another.
fn cycles(graph: &Graph) -> Vec<BTreeSet<usize>> {
    let reach = |from: usize| {
        let (mut reached, mut next) = (BTreeSet::new(), vec![from]);
        while let Some(file) = next.pop() {
            for to in graph.get(&file).into_iter().flat_map(BTreeMap::keys) {
                if reached.insert(*to) {
                    next.push(*to);
                }
            }
        }
        reached
    };
    let reached: BTreeMap<usize, _> = graph.keys().map(|file| (*file, reach(*file))).collect();
    let mut cycles: Vec<BTreeSet<usize>> = Vec::new();
    for (file, files) in &reached {
        if files.contains(file) && !cycles.iter().any(|cycle| cycle.contains(file)) {
            let back = |other: &usize| reached.get(other).is_some_and(|it| it.contains(file));
            cycles.push(files.iter().copied().filter(back).collect());
        }
    }
    cycles
}

/// Returns the cycles of the crate at `root` as text, with the imports that make them.
fn report(root: &Path) -> String {
    let parsed = Crate::parse(root);
    let graph = parsed.graph();
    let name = |file: usize| {
        let path = &parsed.files[file];
        path.strip_prefix(repository::root()).unwrap_or(path).display().to_string()
    };
    let mut text = String::new();
    for cycle in cycles(&graph) {
        let _ = writeln!(text, "cycle of {} files:", cycle.len());
        for (from, imports) in graph.iter().filter(|(from, _)| cycle.contains(from)) {
            for (to, import) in imports.iter().filter(|(to, _)| cycle.contains(to)) {
                let _ = writeln!(text, "  {} -> {} ({import})", name(*from), name(*to));
            }
        }
    }
    text
}

#[test]
fn no_crate_has_a_cycle_of_imports() {
    let roots = repository::tracked(&["rs"])
        .into_iter()
        .filter(|path| path.ends_with("src/lib.rs") || path.ends_with("src/main.rs"));
    let reports: Vec<_> = roots.map(|root| report(&repository::root().join(root))).collect();
    assert!(reports.len() >= 9, "the workspace has at least nine crate roots");
    let text = reports.concat();
    assert!(text.is_empty(), "\n{text}");
}

#[test]
fn a_cycle_is_found_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write("lib.rs", "mod a; mod b; mod c; pub use b::B; pub struct Top;");
    write("a.rs", "use crate::B; #[cfg(test)] mod tests { use crate::c::C; }");
    write("b.rs", "pub struct B; fn f() { vec![super::c::g()]; }");
    write("c.rs", "pub struct C; pub fn g() {}");
    let root = folder.path().join("lib.rs");
    assert_eq!(report(&root), "");
    write("c.rs", "pub struct C; pub fn g() { let _: super::a::A; }");
    let found = report(&root);
    assert!(found.starts_with("cycle of 3 files:"), "{found}");
    for import in ["a.rs -> ", "b.rs -> ", "c.rs -> "] {
        assert!(found.contains(import), "{found}");
    }
    write("c.rs", "pub struct C; pub fn g() { let _ = crate::Top; }");
    assert!(report(&root).starts_with("cycle of 3 files:"), "a parent's own item is an import");
}
