/* A QR code on a terminal: two modules per character, dark on light whatever the colours of the terminal are. */
#include <qrencode.h>

#include "cli/cli_int.h"

enum { QUIET = 2 };

static bool dark(const QRcode *qr, int x, int y)
{
	return x >= 0 && y >= 0 && x < qr->width && y < qr->width &&
	       (qr->data[y * qr->width + x] & 1) != 0;
}

bool print_qr(FILE *out, const char *text)
{
	QRcode *qr = QRcode_encodeString8bit(text, 0, QR_ECLEVEL_L);

	if (!qr) {
		return false;
	}
	for (int y = -QUIET; y < qr->width + QUIET; y += 2) {
		fputs("  \033[40;97m", out);
		for (int x = -QUIET; x < qr->width + QUIET; x++) {
			bool top = dark(qr, x, y), bottom = dark(qr, x, y + 1);

			fputs(top ? (bottom ? " " : "\xe2\x96\x84")
				  : (bottom ? "\xe2\x96\x80" : "\xe2\x96\x88"),
			      out);
		}
		fputs("\033[0m\n", out);
	}
	QRcode_free(qr);
	return true;
}
