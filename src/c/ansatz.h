/* ansatz.h: runs that `ansatz build FILE --emit obj` has compiled, in C programs.
 *
 * A run is a network in training: its weights, the memory of its optimizer, and its place among its steps. The caller gives
 * batches; a batch and a run give the bits that `ansatz train` gives for them on the same level, at any number of threads.
 *
 * Shapes    Tensors are row-major. The samples of a batch come first: a field of sizes [1, 8, 8] has for 32 samples
 *           32 * 64 elements, sample after sample. Elements have four bytes: float, or int32_t for labels and indices.
 * Units     Fields hold what the model reads: what `prepare` in the data item does to rows (scaling, normalizing, classes as
 *           numbers from 0) is the caller's work. Losses and learning rates are numbers a sample and a step.
 * Errors    Functions return ANSATZ_OK or another status; ansatz_error has the words. What is refused changes nothing,
 *           except buffers of outputs, whose values then mean nothing. Pointers that must not be NULL are found out.
 * Ownership The caller owns all it passes; nothing of it is kept after a call, the contents included. What a function gives
 *           out as a pointer belongs to the run and lives until ansatz_destroy, the text of ansatz_error until the
 *           thread's next call.
 * Threads   A run may pass from thread to thread, and be used by one at a time; a second one is refused. Runs do not know
 *           of each other. A run has threads of its own for its steps; it never calls back and sets no signals.
 * Trust     Contents are machine code: create runs of contents that you built.
 */
#ifndef ANSATZ_H
#define ANSATZ_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ansatz_run ansatz_run;

/* Statuses. */
#define ANSATZ_OK 0
#define ANSATZ_REFUSED 1    /* a wrong argument, a file, no memory: nothing has changed */
#define ANSATZ_NOT_FINITE 2 /* the step was taken; a value is infinite or not a number: load an earlier checkpoint */
#define ANSATZ_BROKEN 3     /* a bug of the library: the run can only be destroyed */

/* Tables of a run, and their columns. */
#define ANSATZ_FIELDS 0  /* sizes of one sample; `classes` of a label */
#define ANSATZ_OUTPUTS 1 /* sizes of one sample, or with role 1 of the whole output */
#define ANSATZ_TENSORS 2 /* names as in checkpoints; role 0 parameter, 1 buffer, 2 optimizer, 3 sum of a metric */
#define ANSATZ_METRICS 3 /* no sizes for one number, such as an accuracy */

#define ANSATZ_F32 0
#define ANSATZ_I32 1
#define ANSATZ_F64 2 /* metrics alone */

typedef struct {
  const char *name;
  const size_t *sizes; /* `rank` numbers */
  size_t rank;
  size_t elements; /* their product */
  int32_t element; /* ANSATZ_F32, ANSATZ_I32, ANSATZ_F64 */
  int32_t role;
  size_t classes; /* 0 where the field is no label */
} ansatz_info;

typedef struct {
  size_t size;              /* sizeof(ansatz_options) */
  size_t threads;           /* 0: all that the machine has */
  const char *level;        /* "avx512", "avx2", "portable"; NULL: the best that machine and contents have */
  const uint64_t *seed;     /* of first values and dropout; NULL: the model file's */
  uint64_t total_steps;     /* of the whole run, which schedules count to; 0: the length in the model file */
  uint64_t steps_per_epoch; /* batches of one pass over your training samples, at least 1 */
} ansatz_options;

/* Samples of one field, or NULL where the step does not read it (labels, when predicting). `bytes` is the length of `data`:
 * rows * elements * 4, and refused otherwise. */
typedef struct {
  const void *data;
  size_t bytes;
} ansatz_input;

/* Room for one output, or NULL if it is not wanted; `bytes` as for inputs. */
typedef struct {
  void *data;
  size_t bytes;
} ansatz_output;

/* The version of the library: "0.1.0". */
const char *ansatz_version(void);

/* Makes a run at its start. `*run` is NULL after an error, whose words are ansatz_error(NULL). */
int ansatz_create(const void *contents, size_t length, const ansatz_options *options, ansatz_run **run);

/* Frees a run; NULL is nothing. */
void ansatz_destroy(ansatz_run *run);

/* The last error of a run; of this thread for NULL (create, a run that is NULL or in use) and while another thread uses the
 * run. Never NULL. */
const char *ansatz_error(const ansatz_run *run);

/* Entries of a table; 0 after an error. */
size_t ansatz_count(const ansatz_run *run, int table);

/* One entry of a table. */
int ansatz_describe(const ansatz_run *run, int table, size_t index, ansatz_info *info);

/* Samples of a whole batch; 0 after an error. */
size_t ansatz_batch(const ansatz_run *run);

/* Optimizer steps done. */
uint64_t ansatz_position(const ansatz_run *run);

/* One optimizer step. `fields` has `count` entries in the order of ANSATZ_FIELDS. `rows` is a number of samples that a step
 * was compiled for: a whole batch, and the short last one of the data that the build saw; the error names them. `loss` is the
 * mean of the batch before the update. `loss` and `learning_rate` may be NULL, and are NaN after an error. */
int ansatz_step(ansatz_run *run, const ansatz_input *fields, size_t count, size_t rows, double *loss,
                double *learning_rate);

/* Loss and metrics without training: begin, add 1 to ansatz_batch samples at a time, finish. Steps, loads and saves are
 * refused meanwhile. To finish without a sample is refused, and the pass stays under way. `metrics` has room for `count`
 * numbers: the elements of all metrics, in order, or is NULL. */
int ansatz_evaluate_begin(ansatz_run *run);
int ansatz_evaluate_add(ansatz_run *run, const ansatz_input *fields, size_t count, size_t rows);
int ansatz_evaluate_finish(ansatz_run *run, double *loss, double *metrics, size_t count, uint64_t *samples);

/* The outputs for any number of samples, in the order of ANSATZ_OUTPUTS. Buffers may not overlap. An output of role 1 is over
 * all samples of a step that predicts, so it is given for that number of them alone (a batch, 16 at most), or NULL. */
int ansatz_predict(ansatz_run *run, const ansatz_input *fields, size_t count, size_t rows, const ansatz_output *outputs,
                   size_t output_count);

/* A tensor by its name in ANSATZ_TENSORS, as elements of four bytes. Values that are not finite are refused. */
int ansatz_get(const ansatz_run *run, const char *name, void *data, size_t bytes);
int ansatz_set(ansatz_run *run, const char *name, const void *data, size_t bytes);

/* Safetensors files. Weights (parameters and buffers) are what `ansatz train --init`, `eval` and `predict` take, and load
 * leaves the place in the run as it is. A checkpoint also has the optimizer's memory and the place in the run: load goes on
 * from it to the same bits, if it is of this model, seed, length and level, also from last.safetensors of `ansatz train`. */
#define ANSATZ_WEIGHTS 0
#define ANSATZ_CHECKPOINT 1
int ansatz_save(const ansatz_run *run, const char *path, int kind);
int ansatz_load(ansatz_run *run, const char *path, int kind);

#ifdef __cplusplus
}
#endif
#endif
