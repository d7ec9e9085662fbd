//! A small team of threads for steps of tens of microseconds: workers spin briefly for the next job, then park.

use std::{
    any::Any,
    cell::UnsafeCell,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    thread::JoinHandle,
};

/// Checks for work before a worker parks; about 20 µs.
const SPINS: u32 = 4_000;

type Body<'a> = dyn Fn(usize, usize) + Sync + 'a;

#[derive(Clone, Copy)]
struct Job {
    body: *const Body<'static>,
    tasks: usize,
}

struct Shared {
    /// Job number in the high half, tasks not yet taken in the low half. A worker that wakes late sees another number
    /// (or no task left) and never touches a job that is over.
    tickets: AtomicU64,
    completed: AtomicUsize,
    job: UnsafeCell<Job>,
    sleeping: AtomicUsize,
    parking: Mutex<()>,
    wake: Condvar,
    shutdown: AtomicBool,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: `job` is written only by `Team::run`, which takes `&mut self`, before tickets of that job are published, and
// is read only by threads that hold a ticket; `run` does not return, nor write again, before all tickets are completed.
#[expect(unsafe_code, reason = "the job cell is guarded by tickets, not by a lock")]
unsafe impl Sync for Shared {}
// SAFETY: as above; the pointer in `job` is only followed while `run`, which owns what it points to, waits.
#[expect(unsafe_code, reason = "the job cell is guarded by tickets, not by a lock")]
unsafe impl Send for Shared {}

impl Shared {
    /// Runs tasks of the current job until none is left. Tasks are handed out in order.
    fn work(&self, thread: usize) {
        let mut seen = self.tickets.load(SeqCst);
        while seen & 0xffff_ffff != 0 {
            match self.tickets.compare_exchange_weak(seen, seen - 1, SeqCst, SeqCst) {
                Ok(_) => {
                    // SAFETY: this thread holds a ticket, so `run` is waiting and the job stays as it is.
                    #[expect(unsafe_code, reason = "the ticket keeps the job alive")]
                    let (body, tasks) = unsafe {
                        let job = *self.job.get();
                        (&*job.body, job.tasks)
                    };
                    let task = tasks - (seen & 0xffff_ffff) as usize;
                    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| body(thread, task))) {
                        *self.panic.lock().expect("no panic while this is locked") = Some(panic);
                    }
                    self.completed.fetch_add(1, SeqCst);
                    seen = self.tickets.load(SeqCst);
                }
                Err(current) => seen = current,
            }
        }
    }

    fn has_work(&self) -> bool {
        self.tickets.load(SeqCst) & 0xffff_ffff != 0 || self.shutdown.load(SeqCst)
    }

    fn worker(&self, thread: usize) {
        loop {
            let mut spins = 0;
            while !self.has_work() {
                spins += 1;
                if spins < SPINS {
                    std::hint::spin_loop();
                    continue;
                }
                let mut guard = self.parking.lock().expect("no panic while this is locked");
                self.sleeping.fetch_add(1, SeqCst);
                while !self.has_work() {
                    guard = self.wake.wait(guard).expect("no panic while this is locked");
                }
                self.sleeping.fetch_sub(1, SeqCst);
            }
            if self.shutdown.load(SeqCst) {
                return;
            }
            self.work(thread);
        }
    }
}

/// Threads that share the tasks of one job at a time; the calling thread is the first of them.
pub struct Team {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    jobs: u32,
}

impl std::fmt::Debug for Team {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Team of {}", self.threads())
    }
}

impl Team {
    /// A team of `threads` (at least 1), the calling thread included.
    pub fn new(threads: usize) -> Self {
        fn nothing(_: usize, _: usize) {}
        let shared = Arc::new(Shared {
            tickets: AtomicU64::new(0),
            completed: AtomicUsize::new(0),
            job: UnsafeCell::new(Job { body: &nothing, tasks: 0 }),
            sleeping: AtomicUsize::new(0),
            parking: Mutex::new(()),
            wake: Condvar::new(),
            shutdown: AtomicBool::new(false),
            panic: Mutex::new(None),
        });
        let workers = (1..threads.max(1))
            .map(|thread| {
                let shared = Arc::clone(&shared);
                let builder = std::thread::Builder::new().name(format!("team-{thread}"));
                builder.spawn(move || shared.worker(thread)).expect("the system can start a thread")
            })
            .collect();
        Self { shared, workers, jobs: 0 }
    }

    /// Number of threads, the calling one included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `body(thread, task)` for every task in 0..tasks, on any thread, each once; returns when all are done.
    /// A panic in a task goes on in the caller after the others are done.
    pub fn run(&mut self, tasks: usize, body: &Body<'_>) {
        assert!(tasks < u32::MAX as usize, "too many tasks in one job");
        if self.workers.is_empty() || tasks <= 1 {
            (0..tasks).for_each(|task| body(0, task));
            return;
        }
        let shared = &*self.shared;
        // SAFETY: the lifetime is erased only until this function returns, and it returns only after every ticket of
        // the job is completed; without a ticket no thread follows the pointer. No ticket is out while `job` is written.
        #[expect(unsafe_code, reason = "threads borrow the body only while this function waits for them")]
        unsafe {
            let body = std::mem::transmute::<*const Body<'_>, *const Body<'static>>(body);
            *shared.job.get() = Job { body, tasks };
        }
        shared.completed.store(0, SeqCst);
        self.jobs = self.jobs.wrapping_add(1);
        shared.tickets.store(u64::from(self.jobs) << 32 | tasks as u64, SeqCst);
        if shared.sleeping.load(SeqCst) > 0 {
            drop(shared.parking.lock().expect("no panic while this is locked"));
            shared.wake.notify_all();
        }
        shared.work(0);
        let mut spins = 0_u32;
        while shared.completed.load(SeqCst) < tasks {
            spins = spins.saturating_add(1);
            if spins < SPINS { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
        // Unlocked before the panic goes on, or the lock would be poisoned for the next job.
        let panic = shared.panic.lock().expect("no panic while this is locked").take();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        {
            let _guard = self.shared.parking.lock();
            self.shared.shutdown.store(true, SeqCst);
        }
        self.shared.wake.notify_all();
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once_in_every_job() {
        for threads in [1, 2, 3] {
            let mut team = Team::new(threads);
            for round in 0..if cfg!(miri) { 5 } else { 2_000 } {
                let tasks = round % 7;
                let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                team.run(tasks, &|thread, task| {
                    assert!(thread < threads);
                    counts[task].fetch_add(1, SeqCst);
                });
                assert!(counts.iter().all(|count| count.load(SeqCst) == 1), "{threads} threads, {tasks} tasks");
            }
        }
    }

    #[test]
    fn a_parked_team_wakes_up() {
        let mut team = Team::new(2);
        std::thread::sleep(std::time::Duration::from_millis(20));
        let sum = AtomicUsize::new(0);
        team.run(10, &|_, task| {
            sum.fetch_add(task, SeqCst);
        });
        assert_eq!(sum.into_inner(), 45);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_team_lives_on() {
        let mut team = Team::new(2);
        for _ in 0..2 {
            let caught = catch_unwind(AssertUnwindSafe(|| team.run(8, &|_, task| assert_ne!(task, 5, "boom"))));
            assert!(caught.is_err());
        }
        let count = AtomicUsize::new(0);
        team.run(8, &|_, _| {
            count.fetch_add(1, SeqCst);
        });
        assert_eq!(count.into_inner(), 8);
    }
}
