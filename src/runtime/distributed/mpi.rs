//! Messages over MPI, by calls that do not wait: a rank that is gone must not take the others with it.
//!
//! A message is a head of its tag and length. Short ones are in their head. Long ones follow in pieces, since MPI counts in 32
//! bits, and since a piece that came is a sign of life. Heads and pieces have a tag of MPI each, and MPI keeps the order of
//! those of one rank and tag: so the memory of all pieces is named when their head is read, and nothing is copied.
//!
//! Calls go through the raw interface: that of the crate either waits, or ties buffers to scopes, which a thread that polls
//! does not have.
#![allow(unsafe_code, reason = "MPI is a C library that writes to memory after its calls have returned")]

use super::transport::{LOST, Message, SIGN_OF_LIFE, Transport};
use super::wire::{Reader, put_u32};
use crate::error::{Error, Result};
use ::mpi::Threading;
use ::mpi::environment::Universe;
use ::mpi::ffi;
use std::collections::VecDeque;
use std::ffi::{c_char, c_int};
use std::mem::{ManuallyDrop, MaybeUninit};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Tags of MPI.
const HEAD: c_int = 1;
const PIECE: c_int = 2;
/// Bytes of tag and length.
const HEAD_BYTES: usize = 12;
/// With its head below 4 KiB, a message is sent at once by every transport of Open MPI.
const SHORT: usize = 4000;
/// Bytes of a piece. One call may copy all of a piece while others wait for MPI: 16 MiB are a few milliseconds.
const PIECE_BYTES: usize = 16 << 20;

/// MPI, from its start to its end.
pub(super) struct Mpi {
    rank: usize,
    size: usize,
    local_rank: usize,
    state: Mutex<State>,
}

/// All that calls need: whoever holds it is the only one in MPI.
struct State {
    comm: ffi::MPI_Comm,
    /// Its end is that of MPI.
    universe: ManuallyDrop<Universe>,
    /// To which rank, and what.
    sending: VecDeque<(usize, Transfer)>,
    /// Of each rank, in the order of their heads.
    incoming: Vec<VecDeque<Incoming>>,
}

// SAFETY: a communicator is a handle that any thread may use. MPI was asked for `Threading::Serialized`, and every call is
// made with the mutex around `State`.
unsafe impl Send for State {}

/// A message that comes.
enum Incoming {
    /// Its head.
    Head(Transfer),
    /// Its pieces.
    Body(u32, Transfer),
    /// All of it.
    Whole(u32, Vec<u8>),
    /// A part, with what is known of the message; only while it is looked at.
    Taken,
}

/// Memory that MPI reads from or writes to, until all its requests are done. Where it is dropped before, the memory is leaked:
/// MPI may still use it.
struct Transfer {
    memory: ManuallyDrop<Vec<u8>>,
    requests: VecDeque<Request>,
    /// What is sent or received in all.
    len: usize,
}

/// One call that is under way.
struct Request {
    handle: ffi::MPI_Request,
    /// What must have come. MPI says nothing of what went.
    receives: Option<usize>,
}

impl Mpi {
    /// Starts MPI. All processes of the launcher must.
    pub(super) fn start() -> Result<Box<Self>> {
        let (universe, threading) = ::mpi::initialize_with_threading(Threading::Serialized)
            .ok_or_else(|| Error::defect("MPI is started a second time"))?;
        let universe = ManuallyDrop::new(universe);
        if threading < Threading::Serialized {
            return Err(Error::usage(format!(
                "{} was built for one thread a process (MPI_THREAD_{threading:?}), but tokenformer needs MPI_THREAD_SERIALIZED: take another MPI",
                library()
            )));
        }
        let (mut comm, mut node, mut rank, mut size, mut local_rank) =
            (MaybeUninit::uninit(), MaybeUninit::uninit(), 0, 0, 0);
        // SAFETY: MPI is started, no other thread has it yet, and every pointer is to a variable that lives. `comm` and `node`
        // are read after the calls that write them succeeded.
        let comm = unsafe {
            done(
                "set its error handler",
                ffi::MPI_Comm_set_errhandler(ffi::RSMPI_COMM_WORLD, ffi::RSMPI_ERRORS_RETURN),
            )?;
            done("copy its communicator", ffi::MPI_Comm_dup(ffi::RSMPI_COMM_WORLD, comm.as_mut_ptr()))?;
            let comm = comm.assume_init();
            done("set its error handler", ffi::MPI_Comm_set_errhandler(comm, ffi::RSMPI_ERRORS_RETURN))?;
            done("say its rank", ffi::MPI_Comm_rank(comm, &raw mut rank))?;
            done("say its size", ffi::MPI_Comm_size(comm, &raw mut size))?;
            let (kind, info) = (ffi::RSMPI_COMM_TYPE_SHARED, ffi::RSMPI_INFO_NULL);
            done("find ranks of this machine", ffi::MPI_Comm_split_type(comm, kind, rank, info, node.as_mut_ptr()))?;
            let mut node = node.assume_init();
            done("say its rank on this machine", ffi::MPI_Comm_rank(node, &raw mut local_rank))?;
            done("free a communicator", ffi::MPI_Comm_free(&raw mut node))?;
            comm
        };
        let size = index(size);
        let incoming = (0..size).map(|_| VecDeque::new()).collect();
        let state = Mutex::new(State { comm, universe, sending: VecDeque::new(), incoming });
        Ok(Box::new(Self { rank: index(rank), size, local_rank: index(local_rank), state }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The name and version of the MPI library.
pub(super) fn library() -> String {
    let version = ::mpi::environment::library_version().unwrap_or_default();
    // Open MPI goes on with who built it where.
    version.split([',', '\n']).next().unwrap_or_default().trim_end_matches('\0').to_owned()
}

/// The name of this machine.
pub(super) fn host() -> String {
    ::mpi::environment::processor_name().unwrap_or_else(|_| "unknown host".to_owned())
}

impl Transport for Mpi {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn local_rank(&self) -> usize {
        self.local_rank
    }

    fn send(&self, to: usize, tag: u32, bytes: Vec<u8>) -> Result<()> {
        let mut head = Vec::with_capacity(HEAD_BYTES + bytes.len().min(SHORT));
        put_u32(&mut head, tag);
        head.extend((bytes.len() as u64).to_le_bytes());
        let mut state = self.state();
        if bytes.len() <= SHORT {
            head.extend(bytes);
            return state.start_send(to, HEAD, head);
        }
        state.start_send(to, HEAD, head)?;
        state.start_send(to, PIECE, bytes)
    }

    fn poll(&self) -> Result<Option<Message>> {
        let mut state = self.state();
        if let Err((rank, why)) = state.finish_sends() {
            return Ok(Some(lost(rank, &why)));
        }
        while state.next_head()? {}
        let news = |from| state.advance(from).unwrap_or_else(|why| Some(lost(from, &why)));
        Ok((0..self.size).find_map(news))
    }

    fn is_busy(&self) -> bool {
        let state = self.state();
        !state.sending.is_empty() || state.incoming.iter().any(|from| !from.is_empty())
    }

    fn flush(&self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        loop {
            let mut state = self.state();
            let failed = state.finish_sends().is_err();
            let is_done = state.sending.is_empty();
            drop(state);
            if failed || is_done || Instant::now() > end {
                return is_done;
            }
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    fn end(self: Box<Self>, clean: bool) {
        if !clean {
            // MPI_Finalize waits for all ranks. Nothing is freed that MPI may write to.
            return;
        }
        let mut state = self.state();
        // SAFETY: nothing is on its way, as `clean` says; the communicator and the universe are not used again, since `self`
        // ends here.
        unsafe {
            let _ = ffi::MPI_Comm_free(&raw mut state.comm);
            ManuallyDrop::drop(&mut state.universe);
        }
    }
}

impl State {
    /// Sends memory in pieces; a head is one.
    fn start_send(&mut self, to: usize, tag: c_int, bytes: Vec<u8>) -> Result<()> {
        let mut transfer = Transfer::of(bytes);
        let from = transfer.memory.as_ptr();
        for (at, len) in pieces(transfer.memory.len()) {
            let mut request = MaybeUninit::uninit();
            // SAFETY: the piece lies in the memory of `transfer`, which is neither changed nor freed before its request is
            // done. The request is read after the call succeeded.
            let request = unsafe {
                let (piece, kind) = (from.add(at).cast(), ffi::RSMPI_UINT8_T);
                let code = ffi::MPI_Isend(piece, count(len), kind, count(to), tag, self.comm, request.as_mut_ptr());
                done(&format!("send {len} bytes"), code)?;
                request.assume_init()
            };
            transfer.requests.push_back(Request { handle: request, receives: None });
        }
        self.sending.push_back((to, transfer));
        Ok(())
    }

    /// Lets go of what is gone. Each rank is as fast as it is, so all are looked at.
    fn finish_sends(&mut self) -> Result<(), (usize, Error)> {
        let mut at = 0;
        while let Some((to, transfer)) = self.sending.get_mut(at) {
            let to = *to;
            match transfer.finish_all() {
                Ok(true) => drop(self.sending.remove(at).map(|(_, transfer)| transfer.take())),
                Ok(false) => at += 1,
                Err(why) => {
                    // Its memory is leaked.
                    self.sending.remove(at);
                    return Err((to, why));
                }
            }
        }
        Ok(())
    }

    /// Begins to receive a head, if there is one.
    fn next_head(&mut self) -> Result<bool> {
        let (mut found, mut message, mut status) = (0, MaybeUninit::uninit(), MaybeUninit::uninit());
        // SAFETY: every pointer is to a variable that lives; `message` and `status` are read only where MPI says that it wrote
        // them.
        let (from, len, mut message) = unsafe {
            let (any, comm) = (ffi::RSMPI_ANY_SOURCE, self.comm);
            let code = ffi::MPI_Improbe(any, HEAD, comm, &raw mut found, message.as_mut_ptr(), status.as_mut_ptr());
            done("look for messages", code)?;
            if found == 0 {
                return Ok(false);
            }
            let (status, mut len) = (status.assume_init(), 0);
            done("say a length", ffi::MPI_Get_count(&raw const status, ffi::RSMPI_UINT8_T, &raw mut len))?;
            (index(status.MPI_SOURCE), index(len), message.assume_init())
        };
        let mut transfer = Transfer::with_room(len)?;
        let mut request = MaybeUninit::uninit();
        // SAFETY: `transfer` has room for `len` bytes, and keeps it until the request is done.
        unsafe {
            let to = transfer.memory.as_mut_ptr().cast();
            let kind = ffi::RSMPI_UINT8_T;
            done("receive", ffi::MPI_Imrecv(to, count(len), kind, &raw mut message, request.as_mut_ptr()))?;
            transfer.requests.push_back(Request { handle: request.assume_init(), receives: Some(len) });
        }
        match self.incoming.get_mut(from) {
            Some(incoming) => incoming.push_back(Incoming::Head(transfer)),
            None => return Err(Error::defect(format!("MPI has a message of rank {from}"))),
        }
        Ok(true)
    }

    /// Begins to receive the pieces that a head announces.
    fn start_receive(&self, from: usize, len: u64) -> Result<Transfer> {
        let mut transfer = Transfer::with_room(usize::try_from(len).unwrap_or(usize::MAX))?;
        let to = transfer.memory.as_mut_ptr();
        for (at, len) in pieces(transfer.len) {
            let mut request = MaybeUninit::uninit();
            // SAFETY: `transfer` has room for all pieces, and keeps it until their requests are done.
            unsafe {
                let (piece, kind) = (to.add(at).cast(), ffi::RSMPI_UINT8_T);
                let code = ffi::MPI_Irecv(piece, count(len), kind, count(from), PIECE, self.comm, request.as_mut_ptr());
                done(&format!("receive {len} bytes"), code)?;
                transfer.requests.push_back(Request { handle: request.assume_init(), receives: Some(len) });
            }
        }
        Ok(transfer)
    }

    /// Goes on with what comes from a rank: the first message that is whole, none before it having its tag, or a sign of life.
    fn advance(&mut self, from: usize) -> Result<Option<Message>> {
        let mut tags_before: Vec<u32> = Vec::new();
        let mut at = 0;
        loop {
            let Some(slot) = self.incoming.get_mut(from).and_then(|incoming| incoming.get_mut(at)) else {
                return Ok(None);
            };
            let mut alive = false;
            let mut next = std::mem::replace(slot, Incoming::Taken);
            if let Incoming::Head(mut head) = next {
                head.finish_one()?;
                next = if head.is_done() { self.read_head(from, head)? } else { Incoming::Head(head) };
            }
            if let Incoming::Body(tag, mut body) = next {
                alive = body.finish_one()?.is_some();
                next = if body.is_done() { Incoming::Whole(tag, body.take()) } else { Incoming::Body(tag, body) };
            }
            let Some(incoming) = self.incoming.get_mut(from) else { return Ok(None) };
            let tag = match next {
                Incoming::Whole(tag, bytes) if !tags_before.contains(&tag) => {
                    incoming.remove(at);
                    return Ok(Some(Message { from, tag, bytes }));
                }
                Incoming::Whole(tag, _) | Incoming::Body(tag, _) => Some(tag),
                Incoming::Head(_) | Incoming::Taken => None,
            };
            if let Some(slot) = incoming.get_mut(at) {
                *slot = next;
            }
            if alive {
                return Ok(Some(Message { from, tag: SIGN_OF_LIFE, bytes: Vec::new() }));
            }
            // Behind a head that is not there, pieces cannot be told apart.
            let Some(tag) = tag else { return Ok(None) };
            tags_before.push(tag);
            at += 1;
        }
    }

    fn read_head(&self, from: usize, head: Transfer) -> Result<Incoming> {
        let bytes = head.take();
        let mut reader = Reader(&bytes);
        match (reader.u32(), reader.u64()) {
            (Ok(tag), Ok(len)) if len == reader.0.len() as u64 => {
                Ok(Incoming::Whole(tag, bytes.get(HEAD_BYTES..).unwrap_or_default().to_vec()))
            }
            (Ok(tag), Ok(len)) if len > SHORT as u64 && reader.0.is_empty() => {
                Ok(Incoming::Body(tag, self.start_receive(from, len)?))
            }
            _ => Err(Error::rank(format!(
                "it sends what tokenformer {} does not understand: start the same program on all ranks",
                env!("CARGO_PKG_VERSION")
            ))),
        }
    }
}

impl Transfer {
    /// Memory to send.
    fn of(bytes: Vec<u8>) -> Self {
        Self { len: bytes.len(), memory: ManuallyDrop::new(bytes), requests: VecDeque::new() }
    }

    /// Memory to receive to.
    fn with_room(len: usize) -> Result<Self> {
        let mut memory = Vec::new();
        let room = memory.try_reserve_exact(len);
        room.map_err(|_| Error::rank(format!("it sends {len} bytes, and there is no memory for them")))?;
        Ok(Self { len, memory: ManuallyDrop::new(memory), requests: VecDeque::new() })
    }

    /// Tests the oldest request, and says whether it is done; the others are done no earlier. `None` also where there is none.
    fn finish_one(&mut self) -> Result<Option<()>> {
        let Some(request) = self.requests.front_mut() else { return Ok(None) };
        let (mut is_done, mut status) = (0, MaybeUninit::uninit());
        // SAFETY: the request is one of this transfer, its memory is there, and both pointers are to variables that live.
        let code = unsafe { ffi::MPI_Test(&raw mut request.handle, &raw mut is_done, status.as_mut_ptr()) };
        done("go on with a message", code)?;
        if is_done == 0 {
            return Ok(None);
        }
        if let Some(expected) = request.receives {
            let mut len = 0;
            // SAFETY: a request that is done has written its status.
            done("say a length", unsafe { ffi::MPI_Get_count(status.as_ptr(), ffi::RSMPI_UINT8_T, &raw mut len) })?;
            if index(len) != expected {
                return Err(Error::rank(format!(
                    "it sends {len} bytes where it announced {expected}: start the same program on all ranks"
                )));
            }
        }
        self.requests.pop_front();
        Ok(Some(()))
    }

    /// Tests what can be done, and says whether all is.
    fn finish_all(&mut self) -> Result<bool> {
        while self.finish_one()?.is_some() {}
        Ok(self.is_done())
    }

    fn is_done(&self) -> bool {
        self.requests.is_empty()
    }

    /// The memory, after the last request: only where [`is_done`](Self::is_done).
    fn take(self) -> Vec<u8> {
        debug_assert!(self.is_done(), "memory that MPI uses");
        let mut memory = ManuallyDrop::into_inner(self.memory);
        // SAFETY: what is sent has `len` bytes. What is received has room for them, and all came: a piece of another length was
        // an error of its request.
        unsafe { memory.set_len(self.len) };
        memory
    }
}

/// Where pieces start, and how long they are. One of no bytes where there are none.
fn pieces(len: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..len.max(1)).step_by(PIECE_BYTES).map(move |at| (at, PIECE_BYTES.min(len - at)))
}

/// What MPI calls a count or a rank: pieces and ranks are below 2^31.
fn count(value: usize) -> c_int {
    c_int::try_from(value).unwrap_or(c_int::MAX)
}

fn index(value: c_int) -> usize {
    usize::try_from(value).unwrap_or_default()
}

/// Whatever goes wrong with a rank is its end.
fn lost(from: usize, why: &Error) -> Message {
    Message { from, tag: LOST, bytes: why.to_string().into_bytes() }
}

/// What a call returned.
fn done(what: &str, code: c_int) -> Result<()> {
    if code == 0 {
        return Ok(());
    }
    let (mut text, mut len) = ([0 as c_char; ffi::MPI_MAX_ERROR_STRING as usize + 1], 0);
    // SAFETY: the array has room for the longest text there is.
    unsafe { ffi::MPI_Error_string(code, text.as_mut_ptr(), &raw mut len) };
    let text: String = text.iter().take(index(len)).map(|c| char::from(*c as u8)).collect();
    Err(Error::rank(format!("MPI could not {what}: {text}")))
}
