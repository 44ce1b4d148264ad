//! Finds barriers and subgroup operations that not every invocation of a workgroup is certain to reach together.
//!
//! naga accepts them in divergent control flow, and what a driver then does is undefined. This is
//! the taint analysis of the WGSL specification, a little stricter: a value *varies* when it may differ
//! between the invocations of a workgroup, control flow *diverges* under a condition that varies, and
//! after a divergent `break`, `continue` or `return` until the loop or function they leave ends. Functions
//! are walked again at each call, with what is known of their arguments there.
//!
//! Varies: every built-in input but the workgroup's own (`workgroup_id`, `num_workgroups`), memory that
//! shaders write (storage `read_write`, workgroup, private), results of atomics and subgroup operations,
//! and any expression not listed in [`Walk::varies`]. A local variable varies everywhere if one store to
//! it does. It does not look for races between barriers.

use std::collections::{BTreeSet, HashSet};
use std::ops::BitOr;

use naga::{AddressSpace, Binding, Block, BuiltIn, EntryPoint, Expression, Function, Handle, LocalVariable};
use naga::{Module, Span, Statement, StorageAccess};

/// What all invocations must reach together and may reach apart, each as `the barrier at function:line`.
pub fn divergent(module: &Module, entry: &EntryPoint, source: &str) -> Vec<String> {
    let arguments = entry.function.arguments.iter().map(|argument| {
        !matches!(
            argument.binding,
            Some(Binding::BuiltIn(BuiltIn::WorkGroupId | BuiltIn::NumWorkGroups | BuiltIn::WorkGroupSize))
        )
    });
    let walk = Walk::run(module, &entry.function, &entry.name, source, arguments.collect(), false);
    walk.faults.into_iter().collect()
}

/// Ways out of a block that only some invocations may take.
#[derive(Clone, Copy, Default)]
struct Exits {
    breaks: bool,
    continues: bool,
    returns: bool,
}

impl Exits {
    fn any(self) -> bool {
        self.breaks || self.continues || self.returns
    }
}

impl BitOr for Exits {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self {
            breaks: self.breaks || other.breaks,
            continues: self.continues || other.continues,
            returns: self.returns || other.returns,
        }
    }
}

/// One function, called with arguments that vary or not.
struct Walk<'a> {
    module: &'a Module,
    function: &'a Function,
    name: &'a str,
    source: &'a str,
    arguments: Vec<bool>,
    /// Local variables whose contents vary.
    locals: HashSet<Handle<LocalVariable>>,
    /// Call results that vary.
    results: HashSet<Handle<Expression>>,
    /// Of every expression, whether it varies.
    varying: Vec<bool>,
    returns_varying: bool,
    faults: BTreeSet<String>,
}

impl<'a> Walk<'a> {
    /// Walks until nothing new is found to vary; both sets only grow, so this ends.
    fn run(
        module: &'a Module,
        function: &'a Function,
        name: &'a str,
        source: &'a str,
        arguments: Vec<bool>,
        divergent: bool,
    ) -> Self {
        let (locals, results) = (HashSet::new(), HashSet::new());
        let (varying, faults) = (Vec::new(), BTreeSet::new());
        let mut walk = Self {
            module,
            function,
            name,
            source,
            arguments,
            locals,
            results,
            varying,
            returns_varying: false,
            faults,
        };
        loop {
            let known = walk.locals.len() + walk.results.len();
            walk.varying.clear();
            walk.faults.clear();
            for (handle, expression) in function.expressions.iter() {
                // Operands come before their expression in naga's arena.
                let varies = walk.varies(handle, expression);
                walk.varying.push(varies);
            }
            walk.block(&function.body, divergent);
            if walk.locals.len() + walk.results.len() == known {
                return walk;
            }
        }
    }

    /// Whether an expression may differ between invocations; for a pointer, whether what it points to may.
    fn varies(&self, handle: Handle<Expression>, expression: &Expression) -> bool {
        use Expression as E;
        let v = |operand: Handle<Expression>| self.varying[operand.index()];
        let maybe = |operand: Option<Handle<Expression>>| operand.is_some_and(v);
        match *expression {
            E::Literal(_) | E::Constant(_) | E::Override(_) | E::ZeroValue(_) | E::ArrayLength(_) => false,
            E::WorkGroupUniformLoadResult { .. } => false,
            E::FunctionArgument(index) => self.arguments[index as usize],
            E::LocalVariable(local) => self.locals.contains(&local),
            E::CallResult(_) => self.results.contains(&handle),
            E::GlobalVariable(global) => match self.module.global_variables[global].space {
                AddressSpace::Uniform => false,
                AddressSpace::Storage { access } => access.contains(StorageAccess::STORE),
                _ => true,
            },
            E::Access { base, index } => v(base) || v(index),
            E::AccessIndex { base, .. } => v(base),
            E::Load { pointer } => v(pointer),
            E::Splat { value, .. } => v(value),
            E::Swizzle { vector, .. } => v(vector),
            E::Compose { ref components, .. } => components.iter().any(|&component| v(component)),
            E::Unary { expr, .. } | E::As { expr, .. } => v(expr),
            E::Binary { left, right, .. } => v(left) || v(right),
            E::Select { condition, accept, reject } => v(condition) || v(accept) || v(reject),
            E::Relational { argument, .. } => v(argument),
            E::Math { arg, arg1, arg2, arg3, .. } => v(arg) || maybe(arg1) || maybe(arg2) || maybe(arg3),
            _ => true,
        }
    }

    fn block(&mut self, block: &Block, mut divergent: bool) -> Exits {
        let mut exits = Exits::default();
        for (statement, span) in block.span_iter() {
            let taken = self.statement(statement, *span, divergent);
            divergent |= taken.any();
            exits = exits | taken;
        }
        exits
    }

    fn statement(&mut self, statement: &Statement, span: Span, divergent: bool) -> Exits {
        let none = Exits::default();
        match *statement {
            Statement::Block(ref block) => return self.block(block, divergent),
            Statement::If { condition, ref accept, ref reject } => {
                let divergent = divergent || self.varying[condition.index()];
                return self.block(accept, divergent) | self.block(reject, divergent);
            }
            Statement::Switch { selector, ref cases } => {
                let divergent = divergent || self.varying[selector.index()];
                let exits = cases.iter().fold(none, |exits, case| exits | self.block(&case.body, divergent));
                return Exits { breaks: false, ..exits };
            }
            Statement::Loop { ref body, ref continuing, break_if } => {
                return self.repeat(body, continuing, break_if, divergent);
            }
            Statement::Break => return Exits { breaks: divergent, ..none },
            Statement::Continue => return Exits { continues: divergent, ..none },
            Statement::Return { value } => {
                self.returns_varying |= divergent || value.is_some_and(|value| self.varying[value.index()]);
                return Exits { returns: divergent, ..none };
            }
            Statement::ControlBarrier(_) | Statement::WorkGroupUniformLoad { .. } if divergent => {
                self.fault("barrier", span);
            }
            Statement::SubgroupBallot { .. }
            | Statement::SubgroupGather { .. }
            | Statement::SubgroupCollectiveOperation { .. }
            | Statement::CooperativeStore { .. }
                if divergent =>
            {
                self.fault("subgroup operation", span);
            }
            Statement::Store { pointer, value }
                if divergent || self.varying[pointer.index()] || self.varying[value.index()] =>
            {
                self.taint(pointer);
            }
            Statement::Call { function, ref arguments, result } => self.call(function, arguments, result, divergent),
            // Atomics and subgroup operations: their results vary by default, they write no local.
            _ => {}
        }
        none
    }

    fn fault(&mut self, what: &str, span: Span) {
        let line = span.location(self.source).line_number;
        self.faults.insert(format!("the {what} at {}:{line}", self.name));
    }

    /// A loop that invocations may leave, or continue, apart is divergent from its first statement on.
    fn repeat(
        &mut self,
        body: &Block,
        continuing: &Block,
        break_if: Option<Handle<Expression>>,
        divergent: bool,
    ) -> Exits {
        let exits = self.block(body, divergent);
        let exits = exits | self.block(continuing, divergent || exits.any());
        let apart = exits.any() || break_if.is_some_and(|condition| self.varying[condition.index()]);
        if apart && !divergent {
            return self.repeat(body, continuing, break_if, true);
        }
        Exits { returns: exits.returns, ..Exits::default() }
    }

    fn call(
        &mut self,
        function: Handle<Function>,
        arguments: &[Handle<Expression>],
        result: Option<Handle<Expression>>,
        divergent: bool,
    ) {
        for &argument in arguments {
            // A callee may store anything through a pointer it is given.
            self.taint(argument);
        }
        let callee = &self.module.functions[function];
        let name = callee.name.as_deref().unwrap_or("a function");
        let arguments = arguments.iter().map(|argument| self.varying[argument.index()]).collect();
        let walk = Walk::run(self.module, callee, name, self.source, arguments, divergent);
        self.faults.extend(walk.faults);
        if let Some(result) = result.filter(|_| walk.returns_varying) {
            self.results.insert(result);
        }
    }

    /// Marks the local variable a pointer leads to, if it leads to one.
    fn taint(&mut self, pointer: Handle<Expression>) {
        match self.function.expressions[pointer] {
            Expression::LocalVariable(local) => {
                self.locals.insert(local);
            }
            Expression::Access { base, .. } | Expression::AccessIndex { base, .. } => self.taint(base),
            _ => {}
        }
    }
}
