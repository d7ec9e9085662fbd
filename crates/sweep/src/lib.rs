//! The queue of trials and its workers.
//!
//! [`drain`] knows neither databases nor networks: a [`Queue`] hands out jobs and runs them. Workers are threads of this
//! process; other processes may drain the same queue.
//!
//! [`tpe`] and [`cma`] choose what to try next, the first by one objective or by several ([`front`]), [`pruning`] what to leave; they
//! know numbers only.

pub mod cma;
pub mod front;
pub mod halving;
pub mod pruning;
pub mod tpe;

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// To its end.
    Done,
    /// In an error, which the queue has recorded.
    Failed,
    /// By a stop; it can be taken up again.
    Interrupted,
    /// Because others go first; the queue may hand it out again.
    Paused,
}

/// Answer to a worker that asks for a job.
#[derive(Debug)]
pub enum Claim<J> {
    /// Take this one.
    Job(J),
    /// Nothing now, but a worker may give one up, or what one comes to may make room for another: ask again.
    Wait,
    /// Nothing, and nothing to wait for.
    Empty,
}

/// Hands out jobs and runs them. Used by several threads at once.
pub trait Queue: Sync {
    /// A job that a worker has claimed.
    type Job: Send;
    /// Failure of the queue itself; it ends the whole sweep.
    type Error: Send;

    /// Claims a job for a worker; no job is handed out twice.
    ///
    /// # Errors
    /// When the queue cannot be asked.
    fn claim(&self, worker: usize) -> Result<Claim<Self::Job>, Self::Error>;

    /// Runs a job to one of its ends and records that. May panic.
    ///
    /// # Errors
    /// When the end cannot be recorded.
    fn run(&self, worker: usize, job: &Self::Job) -> Result<Ended, Self::Error>;

    /// Records that the job panicked.
    ///
    /// # Errors
    /// When that cannot be recorded.
    fn panicked(&self, worker: usize, job: &Self::Job, message: &str) -> Result<(), Self::Error>;
}

/// Counts of how jobs ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// To their end.
    pub done: usize,
    /// In an error or a panic.
    pub failed: usize,
    /// By a stop.
    pub interrupted: usize,
}

/// Time between two questions of a worker that waits for others.
const WAIT: Duration = Duration::from_millis(100);

/// What a panic says.
fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without a message".to_owned())
}

/// Runs jobs on `workers` threads until the queue is empty or `stop` says so. One job's failure does not touch the others.
///
/// # Errors
/// The queue's first error; the other workers end after the job at hand.
pub fn drain<Q: Queue>(queue: &Q, workers: usize, stop: &(dyn Fn() -> bool + Sync)) -> Result<Tally, Q::Error> {
    let tally = Mutex::new(Tally::default());
    let error = Mutex::new(None);
    let broken = AtomicBool::new(false);
    let work = |worker: usize| -> Result<(), Q::Error> {
        while !stop() && !broken.load(SeqCst) {
            let job = match queue.claim(worker)? {
                Claim::Job(job) => job,
                Claim::Wait => {
                    std::thread::sleep(WAIT);
                    continue;
                }
                Claim::Empty => break,
            };
            let ended = match catch_unwind(AssertUnwindSafe(|| queue.run(worker, &job))) {
                Ok(ended) => ended?,
                Err(panic) => {
                    queue.panicked(worker, &job, &message(&*panic))?;
                    Ended::Failed
                }
            };
            let mut tally = tally.lock().expect("nothing panics while this is locked");
            match ended {
                Ended::Done => tally.done += 1,
                Ended::Failed => tally.failed += 1,
                Ended::Interrupted => tally.interrupted += 1,
                Ended::Paused => {}
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        for worker in 0..workers.max(1) {
            let (work, error, broken) = (&work, &error, &broken);
            let thread = std::thread::Builder::new().name(format!("worker-{worker}"));
            let started = thread.spawn_scoped(scope, move || {
                if let Err(failure) = work(worker) {
                    broken.store(true, SeqCst);
                    error.lock().expect("nothing panics while this is locked").get_or_insert(failure);
                }
            });
            started.expect("the system can start a thread");
        }
    });
    match error.into_inner().expect("nothing panics while this is locked") {
        Some(error) => Err(error),
        None => Ok(tally.into_inner().expect("nothing panics while this is locked")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Jobs 0..n; what each does is written in its number.
    struct Jobs {
        next: Mutex<usize>,
        count: usize,
        ran: Mutex<Vec<usize>>,
        panics: Mutex<Vec<String>>,
        waits: Mutex<usize>,
    }

    impl Jobs {
        fn new(count: usize, waits: usize) -> Self {
            let (next, ran) = (Mutex::new(0), Mutex::default());
            Self { next, count, ran, panics: Mutex::default(), waits: Mutex::new(waits) }
        }
    }

    impl Queue for Jobs {
        type Job = usize;
        type Error = String;

        fn claim(&self, _: usize) -> Result<Claim<usize>, String> {
            let mut waits = self.waits.lock().unwrap();
            if *waits > 0 {
                *waits -= 1;
                return Ok(Claim::Wait);
            }
            let mut next = self.next.lock().unwrap();
            if *next == self.count {
                return Ok(Claim::Empty);
            }
            *next += 1;
            Ok(Claim::Job(*next - 1))
        }

        fn run(&self, _: usize, job: &usize) -> Result<Ended, String> {
            self.ran.lock().unwrap().push(*job);
            match job % 5 {
                3 => panic!("job {job} fell over"),
                4 => Ok(Ended::Failed),
                _ if *job == 77 => Err("the disk is full".to_owned()),
                _ => Ok(Ended::Done),
            }
        }

        fn panicked(&self, _: usize, _: &usize, message: &str) -> Result<(), String> {
            self.panics.lock().unwrap().push(message.to_owned());
            Ok(())
        }
    }

    #[test]
    fn every_job_runs_once_and_failures_stay_their_own() {
        for workers in [1, 3] {
            let jobs = Jobs::new(50, 2);
            let tally = drain(&jobs, workers, &|| false).unwrap();
            assert_eq!(tally, Tally { done: 30, failed: 20, interrupted: 0 });
            let mut ran = jobs.ran.into_inner().unwrap();
            ran.sort_unstable();
            assert_eq!(ran, (0..50).collect::<Vec<_>>());
            let panics = jobs.panics.into_inner().unwrap();
            assert_eq!(panics.len(), 10);
            assert!(panics.contains(&"job 3 fell over".to_owned()));
        }
    }

    #[test]
    fn an_error_of_the_queue_ends_the_sweep() {
        let jobs = Jobs::new(10_000, 0);
        assert_eq!(drain(&jobs, 2, &|| false), Err("the disk is full".to_owned()));
        assert!(jobs.ran.into_inner().unwrap().len() < 10_000);
    }

    #[test]
    fn a_stop_leaves_the_rest() {
        let jobs = Jobs::new(100, 0);
        let stop = || jobs.ran.lock().unwrap().len() >= 3;
        drain(&jobs, 1, &stop).unwrap();
        assert_eq!(jobs.ran.lock().unwrap().len(), 3);
    }
}
