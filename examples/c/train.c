/* Trains the digits of ../digits.ansatz: cc train.c digits.o libansatz_c.a -lm -lpthread -ldl; ./a.out digits.csv
 *
 * The object and its header are written by
 *   ansatz build examples/digits.ansatz --set data.folder=models/data --emit obj -o digits */
#include "digits.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { pixels = digits_elements_of_field_image, most_samples = 1 << 14, epochs = 3 };

static float images[most_samples][pixels];
static int32_t labels[most_samples];

/* Ends the program where a call was refused. */
static void hold(int status, const ansatz_run *run) {
  if (status != ANSATZ_OK) {
    fprintf(stderr, "error: %s\n", ansatz_error(run));
    exit(1);
  }
}

/* Reads rows of pixels from 0 to 16 and a label, below a line of names; says how many there are. */
static size_t read_table(const char *path) {
  FILE *file = fopen(path, "r");
  char line[4096];
  size_t samples = 0;
  if (file == NULL || fgets(line, sizeof line, file) == NULL) {
    perror(path);
    exit(1);
  }
  while (samples < most_samples && fgets(line, sizeof line, file) != NULL) {
    char *at = line;
    for (size_t pixel = 0; pixel < pixels; pixel++, at += *at == ',') {
      images[samples][pixel] = strtof(at, &at) * (1.0f / 16);
    }
    labels[samples++] = (int32_t)strtol(at, NULL, 10);
  }
  fclose(file);
  return samples;
}

/* The fields of samples from `first` on, in the order of the data item. */
static const ansatz_input *batch(size_t first, size_t rows) {
  static ansatz_input fields[digits_fields];
  fields[digits_field_image] = (ansatz_input){images[first], rows * sizeof images[0]};
  fields[digits_field_label] = (ansatz_input){&labels[first], rows * sizeof labels[0]};
  return fields;
}

int main(int count, char **arguments) {
  if (count != 2) {
    fprintf(stderr, "usage: %s digits.csv\n", arguments[0]);
    return 2;
  }
  size_t samples = read_table(arguments[1]), steps = samples / digits_batch;
  ansatz_options options = {.size = sizeof options, .steps_per_epoch = steps};
  ansatz_run *run;
  hold(digits_create(&options, &run), NULL);

  for (size_t step = 0; step < epochs * steps; step++) {
    double loss, rate;
    hold(ansatz_step(run, batch(step % steps * digits_batch, digits_batch), digits_fields, digits_batch, &loss, &rate), run);
    printf("%zu %.17g\n", step + 1, loss);
  }

  double loss, accuracy;
  uint64_t seen;
  hold(ansatz_evaluate_begin(run), run);
  for (size_t first = 0; first < samples; first += digits_batch) {
    size_t rows = samples - first < digits_batch ? samples - first : digits_batch;
    hold(ansatz_evaluate_add(run, batch(first, rows), digits_fields, rows), run);
  }
  hold(ansatz_evaluate_finish(run, &loss, &accuracy, 1, &seen), run);
  fprintf(stderr, "C: loss %.4f, accuracy %.4f of %zu samples\n", loss, accuracy, (size_t)seen);

  hold(ansatz_save(run, "digits.safetensors", ANSATZ_WEIGHTS), run);
  ansatz_destroy(run);
  return 0;
}
